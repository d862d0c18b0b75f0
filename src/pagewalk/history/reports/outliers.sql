-- Which programs hold far more on one host than elsewhere?
-- More than twice the median of all hosts that have them (three or more), and over 1 MiB above it.
-- uss is what the program's processes have alone, added up; hosts on which the frames of one of them
-- were hidden are left out. The latest recording of each host.
with program as (
    select r.host, coalesce(r.program, r.name) as program, count(*) as processes,
        case when count(r.uss) = count(*) then cast(sum(r.uss) as bigint) end as uss
    from recordings r
    join latest l on l.host = r.host and l.time = r.time
    where r.record = 'process' and r.pid = r.mm
    group by r.host, coalesce(r.program, r.name)
),
usual as (
    select program, count(*) as hosts,
        cast(floor(percentile_cont(0.5) within group (order by uss)) as bigint) as median
    from program
    where uss is not null
    group by program
)
select p.host, p.program, p.processes, p.uss, u.median, u.hosts
from program p
join usual u on u.program = p.program
where u.hosts > 2 and p.uss > 2 * u.median and p.uss - u.median > 1048576
order by p.uss - u.median desc, p.host, p.program
