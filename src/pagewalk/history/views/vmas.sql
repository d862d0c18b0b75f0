-- The mappings of each process, and what of each is in RAM
-- Amounts are bytes, and null where they were withheld. pid is that of the address space (mm in
-- processes). address is as maps prints it, and so is name, with [anon] where it prints none; start
-- and stop are two's complement, so those of the kernel's half are negative.
select r.host, r.time, r.pid, p.name as process, p.program, r.vma,
    case when r.name = '' then '[anon]' else r.name end as name,
    lower(hex(r.start)) || '-' || lower(hex(r.end)) as address,
    r.start, r.end as stop,
    case when (r.perms & 1) = 1 then 'r' else '-' end
        || case when (r.perms & 2) = 2 then 'w' else '-' end
        || case when (r.perms & 4) = 4 then 'x' else '-' end
        || case when (r.perms & 8) = 8 then 's' else 'p' end as perms,
    r.offset as file_offset, r.dev, r.inode,
    case r.backing when 0 then 'anonymous' when 1 then 'file' when 2 then 'shmem'
        when 3 then 'hugetlb' when 4 then 'driver' when 5 then 'kernel' when 6 then 'hidden'
        when 7 then 'gate' end as backing,
    r.vm_flags, r.shmem_swap, r.locked, r.rss, r.pss, r.uss, r.swap, r.size, r.present,
    r.not_present, r.not_mapped, r.anon, r.file, r.shmem, r.zero, r.special, r.hugetlb,
    r.distinct as distinct_bytes, r.freed
from recordings r
join recordings p
    on p.host = r.host and p.time = r.time and p.pid = r.pid
where r.record = 'vma' and p.record = 'process' and p.pid = p.mm
