-- Frames that more than one process maps, and by whom
-- mappings and processes are those recorded; mapcount is how often anybody maps it. Only within a
-- recording.
select f.host, f.time, f.frame, max(f.size) as size, min(f.state) as state,
    max(f.mapcount) as mapcount, count(*) as mappings, count(distinct f.pid) as processes,
    min(f.pid) as first_pid, max(f.pid) as last_pid, array_sort(array_agg(distinct f.pid)) as pids
from frames f
group by f.host, f.time, f.frame
having min(f.pid) <> max(f.pid)
