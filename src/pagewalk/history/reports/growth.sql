-- Which programs have grown since their host was booted?
-- From the first recording that has a program to the last, by a clock that nobody sets; since which
-- boot, the latest recording says. up is how many of the steps between recordings went upwards: with
-- a leak, nearly all do. All processes of a program count together: processes_first and
-- processes_last say of how many the RSS is; with more of them it grew without any that did.
with booted as (
    select m.host, m.boot
    from moments m
    join latest l on l.host = m.host and l.time = m.time
),
program as (
    select m.host, m.uptime, coalesce(r.program, r.name) as program,
        cast(sum(r.rss) as bigint) as rss, count(*) as processes
    from recordings r
    join moments m on m.host = r.host and m.time = r.time
    join booted b on b.host = m.host and b.boot = m.boot
    where r.record = 'process' and r.pid = r.mm
    group by m.host, m.uptime, coalesce(r.program, r.name)
),
step as (
    select host, program, uptime, rss, processes,
        lag(rss) over (partition by host, program order by uptime) as before
    from program
),
change as (
    select host, program, count(*) as recordings, min(uptime) as began, max(uptime) as ended,
        min_by(rss, uptime) as rss_first, max_by(rss, uptime) as rss_last, max(rss) as rss_most,
        min_by(processes, uptime) as processes_first, max_by(processes, uptime) as processes_last,
        count(case when rss > before then 1 end) as up
    from step
    group by host, program
)
select host, program, rss_last - rss_first as grown, rss_first, rss_last, rss_most, processes_first,
    processes_last, recordings, up,
    cast(floor((ended - began) / 60000000000.0) as bigint) as minutes
from change
where recordings > 1 and rss_last > rss_first
order by grown desc, host, program
