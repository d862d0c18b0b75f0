-- Which cgroups are nearest to their limit?
select host, time, charged, allowed,
    case when allowed > 0 then cast(floor(100.0 * charged / allowed) as bigint) end as percent,
    below_limit, reclaimable, removed, sort, cgroup
from cgroups
where allowed is not null
order by percent desc nulls last, below_limit, host, time, cgroup
limit 50
