-- Runs of pages that are alike, of each process
-- Of the i-th page of a run, from 0, the address is start + i * unit, and the frame is
-- frame + i * step; pages is how many there are. A frame is a place in RAM only in a recording made
-- with --physical, and means something within one recording only. Of swap it is the device in the
-- lower 5 bits and the slot above.
select r.host, r.time, r.pid, p.name as process, p.program, r.vma, r.state,
    lower(hex(r.start)) as address, r.start, r.size, r.unit,
    cast(r.size / r.unit as bigint) as pages, r.level, r.flags, r.frame, r.step, r.kflags,
    r.mapcount,
    (r.flags & 8) <> 0 as exclusive,
    (r.flags & 16) <> 0 as soft_dirty,
    (r.flags & 128) <> 0 as huge
from recordings r
join recordings p
    on p.host = r.host and p.time = r.time and p.pid = r.pid
where r.record = 'page' and p.record = 'process' and p.pid = p.mm
