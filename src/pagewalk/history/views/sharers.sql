-- Who maps a frame of sharing, and as what: a row each
select s.host, s.time, s.frame, s.size, s.processes, f.pid, f.process, f.program, f.vma, v.name,
    f.address, f.state, f.mapcount
from sharing s
join frames f
    on f.host = s.host and f.time = s.time and f.frame = s.frame
join vmas v
    on v.host = f.host and v.time = f.time and v.pid = f.pid and v.vma = f.vma
