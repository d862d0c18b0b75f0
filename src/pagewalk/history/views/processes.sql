-- What each process holds
-- Amounts are bytes, and null where they were withheld. Processes with the same mm share an
-- address space: its amounts are in the row with pid = mm only, so that sums are right.
select r.host, r.time, r.pid, r.parent, r.mm, r.uid, r.started, r.name, r.program, r.command,
    r.cgroup,
    case when r.pid = r.mm then r.rss end as rss,
    case when r.pid = r.mm then r.pss end as pss,
    case when r.pid = r.mm then r.uss end as uss,
    case when r.pid = r.mm then r.swap end as swap,
    case when r.pid = r.mm then r.size end as size,
    case when r.pid = r.mm then r.present end as present,
    case when r.pid = r.mm then r.not_present end as not_present,
    case when r.pid = r.mm then r.not_mapped end as not_mapped,
    case when r.pid = r.mm then r.anon end as anon,
    case when r.pid = r.mm then r.file end as file,
    case when r.pid = r.mm then r.shmem end as shmem,
    case when r.pid = r.mm then r.zero end as zero,
    case when r.pid = r.mm then r.special end as special,
    case when r.pid = r.mm then r.hugetlb end as hugetlb,
    case when r.pid = r.mm then r.distinct end as distinct_bytes,
    case when r.pid = r.mm then r.freed end as freed,
    case when r.pid = r.mm then r.page_tables end as page_tables
from recordings r
where r.record = 'process'
