"""Several processes together: what they hold, each frame once, who shares it, what would be freed.

Each address space is walked once, for its sums. A page that is mapped once is its process's alone;
only those that may be mapped more often are kept, as rows by frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from statistics import median_high
from typing import NamedTuple

from pagewalk.model.columns import I64, Withheld
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.objects import Object
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.system.members import Looked, Member, member_of, try_each
from pagewalk.system.peak import Peak, peak_of
from pagewalk.system.processes import Processes
from pagewalk.system.share_at_once import walk_at_once
from pagewalk.system.share_walks import Walked
from pagewalk.system.together import Together

UNTOLD = Withheld(
    "held, freed and who shares what", "the frames of pages are not visible to you; run as root",
    partial=True,
)
UNREAD = ("only the kernel's reference counts show who else holds {}, and this source does not read"
          " them; use --source ebpf")


class Child(NamedTuple):
    """A member that has anonymous memory in common with its parent, which is a member too.

    ``kept`` are bytes that it still shares with it, ``diverged`` what else of its anonymous memory
    there is, by the name of the mapping: written or mapped since the fork. ``alone`` is what
    ending it would free, its page tables included; None where withheld.
    """

    pid: int
    parent: int
    kept: int
    diverged: dict[str, int]
    alone: int | None


class Share(NamedTuple):
    """What the members of a set hold together, in bytes; None where withheld.

    ``looked`` has the members. ``held`` counts each frame once; ``freed`` is what their end frees:
    the anonymous memory that nobody else maps, and the ``objects`` that end with them, whole.
    ``elsewhere`` are the bytes of ``held`` that processes map too which are no members, None also
    where that is not known of each; ``seen`` whether this /proc shows all processes of the machine,
    None if that is not known.
    ``both`` i64[members, members] are bytes in frames that both map, 0 on the diagonal.
    ``one_more`` is what one more child costs: the median of Child.alone. ``peak`` is the most that
    they ever held.
    """

    looked: Looked
    held: int | None
    freed: int | None
    elsewhere: int | None
    seen: bool | None
    objects: tuple[Object, ...]
    both: I64 | None
    children: tuple[Child, ...]
    one_more: int | None
    peak: Peak
    withheld: tuple[Withheld, ...]


def look_at_set(chosen: Sequence[Chosen], where: Processes) -> Share:
    """Walk the processes of ``chosen``, each address space once, and return what they share.

    Raises SourceUnavailable and BadRequest for a source that does not exist or work here, and, if
    no process could be looked at, why the first could not.
    """
    by_pid = {one.process.pid: one for one in chosen}
    groups = where.by_memory(by_pid)
    stay = where.shared_outside(groups)
    walked = Walked(len(groups), {row for row, pids in enumerate(groups) if pids[0] in stay})
    with closing(walked.rows):
        once, members = walk_at_once(walked, groups, by_pid, where)

        def visit(number: int, pids: list[int], one: Source) -> Outcome:
            found = walked.add(number, pids, one)
            members[pids[0]] = member_of([by_pid[pid] for pid in pids], found)
            return found.outcome

        tried = try_each(groups, where, visit, once)
        looked = Looked(tuple(members[p[0]] for p in groups if p[0] in members), tried)
        return made(walked, looked, where)


def made(walked: Walked, looked: Looked, where: Processes) -> Share:
    ending, unsure = walked.holders.ending(where.end(walked.holders.open()))
    members = looked.members
    by_pid = {pid: row for row, one in enumerate(members) for pid in one.pids}
    together = Together([by_pid.get(one.parent, -1) for one in members])
    together.add(walked.in_order())
    known = walked.frames
    family = tuple(children(members, by_pid, together, list(walked.places)))
    sure = known and walked.all_objects and not unsure
    objects = sum(one.resident for one in ending)
    costs = [child.alone for child in family if child.alone is not None]
    held = walked.alone + together.held if known else None
    return Share(
        looked=looked, objects=tuple(ending), held=held,
        freed=walked.own + together.own + objects if sure else None,
        elsewhere=walked.elsewhere + together.elsewhere if known and not together.unsure else None,
        seen=where.shows_all(),
        both=together.both if known else None, children=family if known else (),
        one_more=median_high(costs) if costs else None,
        peak=peak_of(held, walked.highest, where.charged(frozenset(by_pid))),
        withheld=(*withheld(walked, looked, unsure), *uncounted(together.unsure if known else 0)),
    )


def children(
    members: Sequence[Member], by_pid: dict[int, int], together: Together, places: list[str]
) -> Iterator[Child]:
    """Yield the members that share anonymous memory with their parent, a member too."""
    kept: dict[int, dict[str, int]] = {}
    for (row, place), size in together.kept.items():
        kept.setdefault(row, {})[places[place]] = size
    for row, names in sorted(kept.items()):
        one = members[row]
        diverged = {name: size - names.get(name, 0) for name, size in one.anon.items()}
        freed, tables = one.amounts["freed"], one.page_tables
        yield Child(
            one.pids[0], members[by_pid[one.parent]].pids[0], sum(names.values()),
            {name: size for name, size in diverged.items() if size},
            None if freed is None or tables is None else freed + tables,
        )


def uncounted(unsure: int) -> Iterator[Withheld]:
    if unsure:
        yield Withheld("what others map too", f"{unsure} bytes were being migrated, or are in a"
                       " hugetlb page table that processes share: how often they are mapped is not"
                       " known")


def withheld(walked: Walked, looked: Looked, unsure: Sequence[Object]) -> Iterator[Withheld]:
    # Whether an object ends with one member says nothing of the set.
    yield from (row for row in looked.tried.withheld if row.what != "freed")
    if not walked.frames:
        yield UNTOLD
    if unsure:
        unread = looked.tried.source == "procfs"
        why = UNREAD if unread else "who else holds {} changed whenever it was read"
        yield Withheld("freed", why.format(unsure[0].name), partial=not unread)
