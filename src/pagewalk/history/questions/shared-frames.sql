-- Which frames are mapped by more than 10 processes?
select host, time, processes, mappings, mapcount, size, frame, state, first_pid, last_pid
from sharing
where processes > 10
order by processes desc, mappings desc, host, time, frame
limit 50
