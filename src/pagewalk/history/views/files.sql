-- Files in the page cache, and shared memory
-- The largest a row each, bytes of each in RAM. of_cgroup is null for all of RAM; with a cgroup it
-- is what of the file that is charged for.
select r.host, r.time, r.of_cgroup, r.state as sort, r.name, r.dev, r.inode, r.file_system, r.size,
    r.mapped, r.dirty, r.active, r.huge, r.items as files, r.cgroup, r.charged
from recordings r
where r.record = 'file'
