-- What RAM, or the charge of a cgroup, is used for
-- Bytes; the parts with the same of_cgroup add up, those without one to all of RAM.
select r.host, r.time, r.of_cgroup, r.state as part, r.name as kind, r.size
from recordings r
where r.record = 'ram'
