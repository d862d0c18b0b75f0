"""Who of a cgroup was killed for lack of memory: what the kernel's log says of it."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pagewalk.history.glance import Member
from pagewalk.proc.kmsg import Causes, Kill, read_kills

# Seconds from the count of a kill to its record in the log, which the killing task writes as soon
# as it gets a CPU again.
LOGGED_S = 1.0
MOST = 1000  # kills that are kept for the next recording of one, the last of them


@dataclass
class Kills:
    """The kills of the cgroup at ``path`` that the log ``kmsg`` tells of.

    ``untold`` are those that no recording of a kill has told of yet; ``begun`` is what of the log
    is half a kill.
    """

    kmsg: int
    path: str
    untold: list[Kill] = field(default_factory=list)
    begun: Causes = field(default_factory=dict)

    def read(self, seen: Iterable[Member], counted: int = 0) -> tuple[Kill, ...]:
        """Return all that no recording of a kill has told of yet; ``seen`` are known to be inside.

        It is waited for as many as were ``counted``, for LOGGED_S.
        """
        known = {(one.pid, one.name) for one in seen}
        poll, until = select.poll(), time.monotonic() + LOGGED_S
        poll.register(self.kmsg, select.POLLIN)
        while True:
            found = of_group(read_kills(self.kmsg, self.begun), self.path, known)
            self.untold = (self.untold + found)[-MOST:]
            left = until - time.monotonic()
            if len(self.untold) >= min(counted, MOST) or left <= 0:
                return tuple(self.untold)
            poll.poll(left * 1000)

    def told(self) -> None:
        """Forget those that are in a recording of a kill now."""
        self.untold = []


def of_group(kills: list[Kill], path: str, known: set[tuple[int, str]]) -> list[Kill]:
    """Return those of ``kills`` that were in the cgroup at ``path``, or are ``known`` to have been.

    The log has paths as the machine's first cgroup namespace shows them.
    """
    inside = f"{path.rstrip('/')}/"
    return [kill for kill in kills if (kill.pid, kill.name) in known
            or (kill.group is not None and f"{kill.group}/".startswith(inside))]
