-- Which cgroups are near their limit, and what are they full of?
-- Those at 80 % or more; first those that would still be fullest after reclaiming what can be at once
-- (kept_percent; null where that is not known). Anonymous and shared memory can only be swapped out; files can be dropped
-- once they are written. The latest recording of each host.
select r.host, r.cgroup, r.name, r.size as charged, r.allowed,
    cast(floor(100.0 * r.size / r.allowed) as bigint) as percent,
    r.reclaimable, cast(floor(100.0 * (r.size - r.reclaimable) / r.allowed) as bigint) as kept_percent,
    r.anon, r.file, r.shmem, r.kernel
from recordings r
join latest l on l.host = r.host and l.time = r.time
where r.record = 'group' and r.removed = 0 and r.allowed > 0 and r.size * 5 >= r.allowed * 4
order by coalesce(kept_percent, percent) desc, r.size desc, r.host, r.cgroup
