-- Which programs grew between recordings?
with sums as (
    select g.host, g.earlier, g.time, cast(sum(g.rss) as bigint) as rss,
        cast(sum(g.pss) as bigint) as pss, cast(sum(g.uss) as bigint) as uss,
        cast(sum(g.swap) as bigint) as swap,
        count(case when g.change = 'started' then 1 end) as started,
        count(case when g.change = 'ended' then 1 end) as ended,
        coalesce(g.program, g.name) as program
    from growth g
    group by g.host, g.earlier, g.time, coalesce(g.program, g.name)
)
select host, earlier, time, rss, pss, uss, swap, started, ended, program
from sums
where started <> 0 or ended <> 0 or rss <> 0 or swap <> 0 or uss <> 0 or rss is null
order by abs(rss) desc nulls last, abs(swap) desc nulls last, host, time, program
limit 50
