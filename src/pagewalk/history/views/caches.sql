-- Slab caches: the kernel's objects of one kind
-- Bytes, and how many objects at most. of_cgroup is as in files.
select r.host, r.time, r.of_cgroup, r.name, r.size, r.unit as object_size, r.items as objects,
    r.reclaimable, r.cgroup, r.charged
from recordings r
where r.record = 'cache'
