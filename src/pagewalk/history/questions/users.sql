-- Which users have the memory?
select host, time, uid, count(*) as processes, cast(sum(pss) as bigint) as pss,
    cast(sum(uss) as bigint) as uss, cast(sum(rss) as bigint) as rss,
    cast(sum(swap) as bigint) as swap
from processes
where pid = mm
group by host, time, uid
order by pss desc nulls last, rss desc nulls last, host, time, uid
limit 50
