-- When which host was recorded, a row each recording
-- earlier is the time of the recording before it, of the same boot of the host. uptime is when it
-- was begun, nanoseconds since the machine was booted: a clock that nobody sets, by which they are
-- ordered. page_size is bytes. reason is why an armed recorder made it, null if none did.
select r.host, r.time,
    lag(r.time) over (partition by r.host, r.boot order by r.uptime, r.time) as earlier,
    r.boot, r.uptime, r.unit as page_size, r.state as reason
from recordings r
where r.record = 'meta'
