-- Which deleted files are still mapped, and by whom?
select host, time, pid, process, cast(sum(rss) as bigint) as rss, cast(sum(size) as bigint) as size,
    name
from vmas
where name like '% (deleted)' and backing = 'file'
group by host, time, pid, process, name
order by rss desc nulls last, size desc, host, time, pid, name
limit 50
