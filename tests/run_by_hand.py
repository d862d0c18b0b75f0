"""A report of `run`, by hand: two processes, of which one may not be read."""

from __future__ import annotations

from pagewalk.history.budget import Bounds, Look, MadeOf, Portion, Watched, Worst, together
from pagewalk.history.child import Report
from pagewalk.history.verdicts import verdicts
from pagewalk.proc.tree import Holds

MIB = 1 << 20
SERVER = Holds(10, 1, "server", 3, 900 * MIB, 300 * MIB, 300 * MIB, 0, 200 * MIB, 230 * MIB,
               250 * MIB, 210 * MIB, 0, 0, 0)
SUDO = Holds(11, 10, "sudo", 1, 20 * MIB, 8 * MIB, 8 * MIB, 0, refused="it belongs to uid 0")
AMOUNTS = {"uss": Bounds(210 * MIB, 239 * MIB), "pss": Bounds(230 * MIB, 238 * MIB),
           "rss": Bounds(300 * MIB, 308 * MIB), "swap": Bounds(0, 0)}
LOOK = Look(1.25, 0.001, (SERVER, SUDO), AMOUNTS, together((SERVER, SUDO), AMOUNTS["uss"]))
MADE = MadeOf(1.26, (Portion("heap", 150 * MIB, 150 * MIB, 150 * MIB, 0),
                     Portion("files", 60 * MIB, 80 * MIB, 150 * MIB, 0)),
              (Portion("[heap]", 150 * MIB, 150 * MIB, 150 * MIB, 0),
               Portion("/usr/lib/libc.so.6", None, None, 2 * MIB, 0)),
              ("cannot read /proc/11/maps: it belongs to uid 0; run as root",))


def report(*, looked: bool = True, rss: int = 304 * MIB) -> Report:
    """Return a report with budgets for USS, which was exceeded, and for RSS."""
    seen = Watched({"uss": 200 * MIB, "rss": rss},
                   lambda measure, look: Worst(measure, look, {10: "/srv/server --fast"}, MADE))
    if looked:
        seen.add(LOOK)
    return Report(("/srv/server", "--fast"), 0, None, 2.5, 0.04, 0.1, seen, tuple(verdicts(seen)),
                  (SUDO,), (), 30_000)
