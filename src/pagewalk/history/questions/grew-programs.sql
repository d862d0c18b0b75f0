-- Which programs grew between files?
select host, earlier, time, cast(sum(rss) as bigint) as rss, cast(sum(pss) as bigint) as pss,
    cast(sum(uss) as bigint) as uss, cast(sum(swap) as bigint) as swap,
    count(case when change = 'started' then 1 end) as started,
    count(case when change = 'ended' then 1 end) as ended, coalesce(program, name) as program
from growth
group by host, earlier, time, coalesce(program, name)
order by abs(cast(sum(rss) as bigint)) desc nulls last, host, time, program
limit 50
