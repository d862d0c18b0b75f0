-- What is in these recordings?
select m.host, m.time, coalesce(m.reason, '') as reason, count(case when p.pid = p.mm then 1 end) as processes,
    cast(sum(p.present) as bigint) as present, cast(sum(p.swap) as bigint) as swap
from moments m
left join processes p on p.host = m.host and p.time = m.time
group by m.host, m.time, m.reason
order by m.host, m.time
