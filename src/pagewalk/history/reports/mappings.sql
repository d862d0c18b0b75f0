-- What is mapped on all hosts, by name?
-- used counts each page frame once for a name and host, hugetlb pages too; shared is what RSS
-- counts more than once. Null where frames behind the name were hidden, be it on one host. The latest
-- recording of each host.
with dark as (
    select r.host, r.time, r.pid
    from recordings r
    where r.record = 'process' and r.pid = r.mm and r.uss is null
),
mapping as (
    select r.host, r.time, r.pid, r.vma, coalesce(nullif(r.name, ''), '(anonymous)') as name, r.rss,
        d.pid as dark
    from recordings r
    join latest l on l.host = r.host and l.time = r.time
    left join dark d on d.host = r.host and d.time = r.time and d.pid = r.pid
    where r.record = 'vma'
),
run as (
    select n.host, n.name, m.state, m.first, m.after, m.page
    from mapped m
    join mapping n on n.host = m.host and n.time = m.time and n.pid = m.pid and n.vma = m.vma
),
ordered as (
    select host, name, state, first, after, page,
        max(after) over (partition by host, name order by first, after
            rows between unbounded preceding and 1 preceding) as reached
    from run
),
fresh as (
    select name, state, page * case when reached is null or first >= reached then after - first
        when after > reached then after - reached else 0 end as size
    from ordered
),
used as (
    select name, cast(sum(size) as bigint) as used,
        cast(sum(case when state = 'hugetlb' then 0 else size end) as bigint) as counted
    from fresh
    group by name
),
held as (
    select name, count(distinct host) as hosts, count(distinct host || ' ' || pid) as processes,
        count(*) as mappings, cast(sum(rss) as bigint) as rss, count(dark) as hidden
    from mapping
    group by name
)
select h.name, h.hosts, h.processes, h.mappings, h.rss,
    case when h.hidden = 0 then coalesce(u.used, 0) end as used,
    case when h.hidden = 0 then h.rss - coalesce(u.counted, 0) end as shared
from held h
left join used u on u.name = h.name
order by used desc nulls last, h.rss desc nulls last, h.name
