-- What is swapped out, by program?
select host, time, count(*) as processes, cast(sum(swap) as bigint) as swap,
    cast(sum(rss) as bigint) as rss, coalesce(program, name) as program
from processes
where swap > 0
group by host, time, coalesce(program, name)
order by swap desc, host, time, program
limit 50
