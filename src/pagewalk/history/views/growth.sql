-- What each process grew by since the recording before
-- From one recording of a host to the next of the same boot, bytes; null where they were withheld.
-- change is 'started' for a process that the earlier recording does not have, 'ended' for one that
-- the later one does not have, else 'stayed'. A process that was started under a pid that was used
-- before is another one.
with later as (
    select m.earlier, p.* from moments m
    join processes p on p.host = m.host and p.time = m.time
    where m.earlier is not null and p.pid = p.mm
),
before as (
    select m.time as next, p.* from moments m
    join processes p on p.host = m.host and p.time = m.earlier
    where p.pid = p.mm
)
select coalesce(l.host, b.host) as host, coalesce(l.time, b.next) as time,
    coalesce(l.earlier, b.time) as earlier, coalesce(l.pid, b.pid) as pid,
    coalesce(l.name, b.name) as name, coalesce(l.program, b.program) as program,
    case when b.pid is null then 'started' when l.pid is null then 'ended' else 'stayed'
        end as change,
    case when l.pid is null then 0 else l.rss end
        - case when b.pid is null then 0 else b.rss end as rss,
    case when l.pid is null then 0 else l.pss end
        - case when b.pid is null then 0 else b.pss end as pss,
    case when l.pid is null then 0 else l.uss end
        - case when b.pid is null then 0 else b.uss end as uss,
    case when l.pid is null then 0 else l.swap end
        - case when b.pid is null then 0 else b.swap end as swap,
    case when l.pid is null then 0 else l.size end
        - case when b.pid is null then 0 else b.size end as size
from later l
full outer join before b
    on b.host = l.host and b.next = l.time and b.pid = l.pid
    and b.started is not distinct from l.started
