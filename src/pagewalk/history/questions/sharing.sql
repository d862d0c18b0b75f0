-- How much memory do how many processes share?
select host, time, processes, count(*) as frames, cast(sum(size) as bigint) as size
from sharing
group by host, time, processes
order by host, time, processes
