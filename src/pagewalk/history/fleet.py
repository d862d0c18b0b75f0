"""Reports on many hosts: which recordings of a data set count, and one SELECT over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from pagewalk.history.sql import Answer, Database
from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.places import recordings_in
from pagewalk.snapshot.relation import One, footer, located

DUCKDB = "duckdb"
# The reports that need to know who has which frame, and what processes hold alone.
OF_FRAMES = ("programs", "mappings", "libraries", "outliers")
HIDDEN = """
select r.host, count(*) as processes
from recordings r
join latest l on l.host = r.host and l.time = r.time
where r.record = 'process' and r.pid = r.mm and r.uss is null
group by r.host
order by r.host
"""
LATE = 3600 * 10**6  # microseconds behind the newest recording of all


class Fleet(NamedTuple):
    """The recordings of a data set, and ``damaged``: those that cannot be read, and why."""

    recordings: tuple[One, ...]
    damaged: tuple[str, ...]

    @property
    def hosts(self) -> dict[str, int]:
        """Return the hosts, and the time of the latest recording of each, microseconds."""
        found: dict[str, int] = {}
        for one in self.recordings:
            found[one.meta.host] = max(found.get(one.meta.host, 0), one.micros)
        return found

    @property
    def refused(self) -> dict[str, int]:
        """Return how many processes the latest recording of a host lacks, by host."""
        hosts = self.hosts
        return {one.meta.host: one.meta.refused for one in self.recordings
                if one.meta.refused and one.micros == hosts[one.meta.host]}

    @property
    def late(self) -> list[str]:
        """Return the hosts whose latest recording is LATE, by the clocks of the hosts."""
        hosts = self.hosts
        newest = max(hosts.values(), default=0)
        return sorted(host for host, latest in hosts.items() if latest < newest - LATE)


def look_at_fleet(root: str) -> Fleet:
    """Read what the recordings of data set ``root`` are; raises BadRecording, OSError.

    One that is cut, foreign or too new is left out.
    """
    found, damaged = list[One](), list[str]()
    for entry in recordings_in(root, damaged):
        try:
            one = footer(entry.path)
            located(one)
        except BadRecording as error:
            damaged.append(str(error))
            continue
        found.append(one)
    if not found:
        raise BadRecording(root, damaged[0])
    return Fleet(tuple(found), tuple(damaged))


@contextmanager
def asking(fleet: Fleet, root: str, engine: str, memory: int) -> Iterator[Callable[[str], Answer]]:
    """Yield what answers SQL: DuckDB here, or the Spark cluster ``engine``.

    Both run the same text. Raises what either raises.
    """
    if engine == DUCKDB:
        yield Database(fleet.recordings, memory, None, spill=True).ask
        return
    from pagewalk.history.spark import ask, connected, read

    with connected(engine) as session:
        # By its own rules it would read some of what we left out.
        some = fleet.recordings if fleet.damaged else ()
        read(session, root, [one.path for one in some])
        yield partial(ask, session)


def hidden(ask: Callable[[str], Answer]) -> dict[str, int]:
    """Return how many processes of the latest recording of a host hid their frames, by host."""
    return dict(ask(HIDDEN).rows)
