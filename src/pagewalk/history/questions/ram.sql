-- What is RAM used for?
select host, time, coalesce(of_cgroup, '(RAM)') as of_cgroup, size, part, kind
from ram
order by host, time, of_cgroup, size desc, part, kind
limit 200
