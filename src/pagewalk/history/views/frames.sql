-- Each page frame that a process maps
-- A row for each base page (4 KiB on most machines), also of huge pages; not for the zero page, nor
-- for memory without a struct page. address is its first byte in the process, two's complement.
select e.host, e.time, e.frame + e.i as frame, e.size, e.pid, e.process, e.program, e.vma, e.state,
    e.start + e.i * e.size as address, e.kflags, e.mapcount
from (
    select p.host, p.time, p.frame, cast(p.unit / p.step as bigint) as size, p.pid, p.process,
        p.program, p.vma, p.state, p.start, p.kflags, p.mapcount,
        explode(sequence(cast(0 as bigint), p.pages * p.step - 1)) as i
    from pages p
    where p.step > 0 and p.frame is not null
        and p.state in ('anon', 'file', 'shmem', 'hugetlb', 'device', 'present', 'migrating')
) e
