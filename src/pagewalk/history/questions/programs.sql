-- Which programs have the memory?
-- By PSS: a page that several processes map counts in parts, so that PSS adds up.
select host, time, count(*) as processes, cast(sum(pss) as bigint) as pss,
    cast(sum(uss) as bigint) as uss, cast(sum(rss) as bigint) as rss,
    cast(sum(swap) as bigint) as swap, coalesce(program, name) as program
from processes
where pid = mm
group by host, time, coalesce(program, name)
order by pss desc nulls last, rss desc nulls last, host, time, program
limit 50
