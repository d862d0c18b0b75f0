-- Memory cgroups: what each is charged for, and may be
-- Bytes, with the cgroups below it. allowed is null without a limit. removed is 1 if a cgroup has
-- no directory any more, but something is still charged to it.
select r.host, r.time, r.cgroup, r.name, r.state as sort, r.inode, r.parent, r.size as charged,
    r.allowed, r.allowed - r.size as below_limit, r.anon, r.file, r.shmem, r.kernel, r.unmapped,
    r.reclaimable, r.swap, r.removed
from recordings r
where r.record = 'group'
