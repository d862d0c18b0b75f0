-- How much memory do how many processes share?
-- The latest recording of each host.
select s.host, s.time, s.processes, count(*) as frames, cast(sum(s.size) as bigint) as size
from sharing s
join latest l on l.host = s.host and l.time = s.time
group by s.host, s.time, s.processes
order by s.host, s.time, s.processes
