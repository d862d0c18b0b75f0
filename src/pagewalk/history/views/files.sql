-- Files in the page cache, and shared memory
-- The largest a row each. of_cgroup is null where size is all of the file that is in RAM, else it
-- is only what that cgroup is charged for.
select r.host, r.time, r.of_cgroup, r.state as sort, r.name, r.dev, r.inode, r.file_system, r.size,
    r.mapped, r.dirty, r.active, r.huge, r.items as files, r.cgroup, r.charged
from recordings r
where r.record = 'file'
