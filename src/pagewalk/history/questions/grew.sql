-- What grew between recordings?
-- Processes, from one recording of a host to the next.
select host, earlier, time, rss, pss, uss, swap, pid, change,
    coalesce(program, name) as program
from growth
where change <> 'stayed' or rss <> 0 or swap <> 0 or uss <> 0 or rss is null
order by abs(rss) desc nulls last, abs(swap) desc nulls last, host, time, pid
limit 50
