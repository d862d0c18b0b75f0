-- Which mappings grew between files, by their name?
with sums as (
    select v.host, v.time, coalesce(v.program, v.process) as program, v.name,
        cast(sum(v.rss) as bigint) as rss, cast(sum(v.swap) as bigint) as swap, count(*) as mappings
    from vmas v
    group by v.host, v.time, coalesce(v.program, v.process), v.name
),
changes as (
    select s.host, m.earlier, s.time, s.program, s.name, s.rss, s.swap, s.mappings
    from sums s
    join moments m on m.host = s.host and m.time = s.time
    where m.earlier is not null
    union all
    select s.host, m.earlier, m.time, s.program, s.name, -s.rss, -s.swap, -s.mappings
    from sums s
    join moments m on m.host = s.host and m.earlier = s.time
)
select host, earlier, time, cast(sum(rss) as bigint) as rss, cast(sum(swap) as bigint) as swap,
    cast(sum(mappings) as bigint) as mappings, program, name
from changes
group by host, earlier, time, program, name
having sum(rss) <> 0 or sum(swap) <> 0 or sum(mappings) <> 0
order by abs(cast(sum(rss) as bigint)) desc nulls last, host, time, program, name
limit 50
