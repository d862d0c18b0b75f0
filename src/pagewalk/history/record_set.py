"""What a recording keeps of its processes together, which only their machine can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pagewalk.account.table import Table
from pagewalk.history.hidden import without_paths
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import NoAddressSpace, NotPermitted, PagewalkError, ProcessGone
from pagewalk.proc.chosen import Chosen, user_name
from pagewalk.snapshot.documents import to_text
from pagewalk.system.endings import Holders
from pagewalk.system.peak import CHARGED, Charged
from pagewalk.system.processes import Processes
from pagewalk.system.recorded_processes import SET, Ending, RecordedSet, Refused

SCRUBBED = Charged(None, None, Withheld(CHARGED, "the recording was made with --scrub"))


class SetSoFar:
    """The processes ``chosen`` while they are recorded, and what was found out so far."""

    def __init__(self, chosen: Sequence[Chosen], where: Processes) -> None:
        self.chosen, self.where, self.source = chosen, where, where.source
        self.groups = where.by_memory([one.process.pid for one in chosen])
        self.elsewhere = where.shared_outside(self.groups)
        self.holders = Holders()
        self.walked: list[int] = []
        self.odd: list[int] = []
        self.uids: set[int] = set()

    def add(self, pids: list[int], uids: Sequence[int], source: str, found: Table) -> None:
        """Add an address space that was recorded, that of ``pids``."""
        self.source = source
        self.walked += pids
        self.uids.update(uids)
        if found.outcome.withheld:
            self.odd.append(pids[0])
        if pids[0] not in self.elsewhere:
            self.holders.add(pids, found.vmas, found.outcome)

    def row(
        self, machine: str, refused: dict[int, PagewalkError], *, scrub: bool
    ) -> dict[str, Any]:
        """Return the document as columns of a row.

        ``machine`` is a line about it, ``refused`` why processes could not be recorded.
        """
        held = self.holders.open()
        ends = self.where.end(held)
        found = RecordedSet(
            machine, self.source, tuple(map(scrubbed, self.chosen) if scrub else self.chosen),
            tuple(map(tuple, self.groups)), tuple(self.odd), tuple(sorted(self.elsewhere)),
            tuple(Refused(pid, why_of(error, scrub=scrub)) for pid, error in refused.items()
                  if not ended(error)),
            tuple(pid for pid, error in refused.items() if ended(error)),
            self.where.shows_all(),
            tuple(Ending(*key, tuple(one.pids), ends[key]) for key, one in held.items()),
            SCRUBBED if scrub else self.where.charged(frozenset(self.walked)),
            {} if scrub else {uid: user_name(uid) for uid in sorted(self.uids)},
        )
        return {"name": [SET], "text": [to_text(found)]}


def ended(error: PagewalkError) -> bool:
    return isinstance(error, ProcessGone | NoAddressSpace)


def why_of(error: PagewalkError, *, scrub: bool) -> tuple[str, ...]:
    why = ((error.what, error.says, error.remedy) if isinstance(error, NotPermitted) else
           (str(error),))
    return tuple(map(without_paths, why)) if scrub else why


def scrubbed(one: Chosen) -> Chosen:
    """Return a process without paths and its command line."""
    return one._replace(process=one.process._replace(argv0="", script="", command=""))
