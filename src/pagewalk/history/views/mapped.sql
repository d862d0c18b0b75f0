-- Runs of page frames that a process maps, hugetlb pages too
-- From frame first up to, but not with, frame after; page is the bytes of one. A frame is in as many
-- rows as map it. Not the zero page, nor memory without a struct page.
select r.host, r.time, r.pid, r.vma, r.state, r.frame as first,
    r.frame + cast(r.size / r.unit as bigint) * r.step as after,
    cast(r.unit / r.step as bigint) as page
from recordings r
where r.record = 'page' and r.step > 0 and r.frame is not null
    and r.state in ('anon', 'file', 'shmem', 'hugetlb', 'device', 'present', 'migrating')
