-- Which files have the page cache and shared memory?
select host, time, of_cgroup, size, mapped, dirty, sort, cgroup, name
from files
order by size desc, host, time, name
limit 50
