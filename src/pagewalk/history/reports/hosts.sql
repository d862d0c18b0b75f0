-- Which hosts are there, and can their clocks be right?
-- set_back counts recordings whose clock is behind that of an earlier one of the same boot.
-- processes and rss are those of the latest recording.
with moment as (
    select host, time, boot, uptime, moment,
        max(moment) over (partition by host, boot order by uptime
            rows between unbounded preceding and 1 preceding) as reached
    from recordings
    where record = 'meta'
),
host as (
    select host, count(*) as recordings, min(time) as first, max(time) as latest,
        count(distinct boot) as boots, count(case when moment < reached then 1 end) as set_back
    from moment
    group by host
),
process as (
    select r.host, r.time, count(*) as processes, cast(sum(r.rss) as bigint) as rss
    from recordings r
    where r.record = 'process' and r.pid = r.mm
    group by r.host, r.time
)
select h.host, h.recordings, h.first, h.latest, h.boots, h.set_back, p.processes, p.rss
from host h
left join process p on p.host = h.host and p.time = h.latest
order by h.latest, h.host
