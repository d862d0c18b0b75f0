-- What is mapped on all hosts, by name?
-- used counts each page frame once for a name and host, shared is what RSS counts more than once.
-- The latest recording of each host.
with latest as (
    select host, max(time) as time from recordings where record = 'meta' group by host
),
mapping as (
    select r.host, r.time, r.pid, r.vma, coalesce(nullif(r.name, ''), '(anonymous)') as name, r.rss
    from recordings r
    join latest l on l.host = r.host and l.time = r.time
    where r.record = 'vma'
),
run as (
    select m.host, m.name, r.frame as first,
        r.frame + cast(r.size / r.unit as bigint) * r.step as after,
        cast(r.unit / r.step as bigint) as page
    from recordings r
    join mapping m on m.host = r.host and m.time = r.time and m.pid = r.pid and m.vma = r.vma
    where r.record = 'page' and r.step > 0 and r.frame is not null
        and r.state in ('anon', 'file', 'shmem', 'hugetlb', 'migrating')
),
ordered as (
    select host, name, first, after, page,
        max(after) over (partition by host, name order by first, after
            rows between unbounded preceding and 1 preceding) as reached
    from run
),
used as (
    select name,
        cast(sum(page * case when reached is null or first >= reached then after - first
            when after > reached then after - reached else 0 end) as bigint) as used
    from ordered
    group by name
),
held as (
    select name, count(distinct host) as hosts, count(distinct host || ' ' || pid) as processes,
        count(*) as mappings, cast(sum(rss) as bigint) as rss
    from mapping
    group by name
)
select h.name, h.hosts, h.processes, h.mappings, h.rss, u.used, h.rss - u.used as shared
from held h
left join used u on u.name = h.name
order by u.used desc nulls last, h.rss desc nulls last, h.name
