-- Which files fill the page cache and shared memory?
select host, time, coalesce(of_cgroup, '(RAM)') as of_cgroup, size, mapped, dirty, files, sort,
    cgroup, name
from files
order by size desc, host, time, name
limit 50
