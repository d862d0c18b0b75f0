-- Which of the kernel's objects take the most?
select host, time, coalesce(of_cgroup, '(RAM)') as of_cgroup, size, objects, object_size,
    reclaimable, name
from caches
order by size desc, host, time, name
limit 50
