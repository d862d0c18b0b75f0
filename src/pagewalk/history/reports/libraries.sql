-- Which libraries are in the RAM of a host more than once?
-- Other versions, or files of other images; extra is what all but the largest copy on each host
-- take. Processes whose frames were hidden are left out. The latest recording of each host.
with mapping as (
    select r.host, r.time, r.pid, r.vma, r.name, r.dev, r.inode,
        regexp_replace(regexp_extract(r.name, '([^/]+)[.]so', 1), '[-.0-9]+$', '') as library
    from recordings r
    join latest l on l.host = r.host and l.time = r.time
    where r.record = 'vma' and r.backing = 1 and r.name like '%.so%'
),
run as (
    select n.host, n.library, n.name, n.dev, n.inode, m.first, m.after, m.page
    from mapped m
    join mapping n on n.host = m.host and n.time = m.time and n.pid = m.pid and n.vma = m.vma
    where m.state = 'file'
),
ordered as (
    select host, library, name, dev, inode, first, after, page,
        max(after) over (partition by host, library, dev, inode, name order by first, after
            rows between unbounded preceding and 1 preceding) as reached
    from run
),
copy as (
    select host, library, name, dev, inode,
        cast(sum(page * case when reached is null or first >= reached then after - first
            when after > reached then after - reached else 0 end) as bigint) as used
    from ordered
    group by host, library, name, dev, inode
),
by_host as (
    select host, library, count(*) as copies, cast(sum(used) as bigint) as used,
        cast(sum(used) - max(used) as bigint) as extra
    from copy
    group by host, library
)
select library, count(*) as hosts, max(copies) as copies, cast(sum(used) as bigint) as used,
    cast(sum(extra) as bigint) as extra
from by_host
where copies > 1
group by library
order by extra desc, library
