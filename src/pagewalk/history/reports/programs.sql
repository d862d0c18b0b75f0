-- What does each program hold, on all hosts?
-- used counts each page frame once for a program and host, hugetlb pages too; shared is what RSS
-- counts more than once. Null where frames of the program were hidden, be it on one host. The latest
-- recording of each host.
with process as (
    select r.host, r.time, r.mm, coalesce(r.program, r.name) as program, r.rss, r.uss, r.swap
    from recordings r
    join latest l on l.host = r.host and l.time = r.time
    where r.record = 'process' and r.pid = r.mm
),
run as (
    select p.host, p.program, m.state, m.first, m.after, m.page
    from mapped m
    join process p on p.host = m.host and p.time = m.time and p.mm = m.pid
),
ordered as (
    select host, program, state, first, after, page,
        max(after) over (partition by host, program order by first, after
            rows between unbounded preceding and 1 preceding) as reached
    from run
),
fresh as (
    select program, state, page * case when reached is null or first >= reached then after - first
        when after > reached then after - reached else 0 end as size
    from ordered
),
used as (
    select program, cast(sum(size) as bigint) as used,
        cast(sum(case when state = 'hugetlb' then 0 else size end) as bigint) as counted
    from fresh
    group by program
),
held as (
    select program, count(distinct host) as hosts, count(*) as processes,
        cast(sum(rss) as bigint) as rss, cast(sum(uss) as bigint) as uss,
        count(case when uss is null then 1 end) as hidden,
        cast(sum(swap) as bigint) as swap
    from process
    group by program
)
select h.program, h.hosts, h.processes, h.rss,
    case when h.hidden = 0 then coalesce(u.used, 0) end as used,
    case when h.hidden = 0 then h.rss - coalesce(u.counted, 0) end as shared,
    case when h.hidden = 0 then h.uss end as uss, h.swap
from held h
left join used u on u.program = h.program
order by used desc nulls last, h.rss desc nulls last, h.program
