-- Which mappings grew between recordings, by name?
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
),
totals as (
    select c.host, c.earlier, c.time, cast(sum(c.rss) as bigint) as rss,
        cast(sum(c.swap) as bigint) as swap, cast(sum(c.mappings) as bigint) as mappings,
        c.program, c.name
    from changes c
    group by c.host, c.earlier, c.time, c.program, c.name
)
select host, earlier, time, rss, swap, mappings, program, name
from totals
where rss <> 0 or swap <> 0 or mappings <> 0
order by abs(rss) desc nulls last, abs(swap) desc nulls last, host, time, program, name
limit 50
