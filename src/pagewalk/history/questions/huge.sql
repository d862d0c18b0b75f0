-- How much memory is mapped by huge pages, by program?
select host, time, cast(sum(size) as bigint) as size, count(distinct pid) as processes, state,
    coalesce(program, process) as program
from pages
where huge and state <> 'zero'
group by host, time, state, coalesce(program, process)
order by size desc, host, time, program, state
limit 50
