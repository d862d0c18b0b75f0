-- Which mappings are the largest in RAM?
select host, time, pid, process, rss, pss, swap, size, perms, address, name
from vmas
order by rss desc nulls last, size desc, host, time, pid, start
limit 50
