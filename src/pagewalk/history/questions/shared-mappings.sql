-- Which mappings does everybody share?
-- processes: how many map the same frame under this name, at most; size: its frames that more than
-- one process maps, each counted once.
with each as (
    select s.host, s.time, s.name, s.frame, max(s.size) as size,
        count(distinct s.pid) as processes
    from sharers s
    group by s.host, s.time, s.name, s.frame
),
everybody as (
    select p.host, p.time, count(*) as processes from processes p
    where p.pid = p.mm
    group by p.host, p.time
)
select e.host, e.time, max(e.processes) as processes, max(a.processes) as recorded,
    cast(sum(e.size) as bigint) as size, e.name
from each e
join everybody a on a.host = e.host and a.time = e.time
group by e.host, e.time, e.name
order by processes desc, size desc, e.host, e.time, e.name
limit 50
