-- The latest recording of each host
-- By the clock of the host.
select r.host, max(r.time) as time
from recordings r
where r.record = 'meta'
group by r.host
