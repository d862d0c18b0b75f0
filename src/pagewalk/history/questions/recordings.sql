-- What is in these recordings?
select host, time, count(*) as processes, cast(sum(present) as bigint) as present,
    cast(sum(swap) as bigint) as swap
from processes
group by host, time
order by host, time
