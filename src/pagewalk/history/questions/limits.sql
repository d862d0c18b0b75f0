-- Which cgroups are nearest to their limit?
select host, time, charged, allowed, headroom, reclaimable, removed, sort, cgroup
from cgroups
where allowed is not null
order by headroom, host, time, cgroup
limit 50
