-- What is in these recordings?
select host, time, count(case when pid = mm then 1 end) as processes, cast(sum(present) as bigint) as present,
    cast(sum(swap) as bigint) as swap
from processes
group by host, time
order by host, time
