-- What is RAM used for?
select host, time, of_cgroup, size, part, kind
from ram
order by host, time, of_cgroup nulls first, size desc, part, kind
limit 200
