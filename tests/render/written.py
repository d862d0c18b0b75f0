"""Write hand-made results in any format, as a command would."""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import Any

import numpy as np

from pagewalk.account.groups import by_kind
from pagewalk.account.ledger import ledger
from pagewalk.heap.cpython import Build
from pagewalk.heap.heap import Heap, Part, PoolBytes, Stacks
from pagewalk.history.armed_recording import ArmedRecording
from pagewalk.model.frames import Kind
from pagewalk.proc.processes import Process
from pagewalk.render import view
from pagewalk.sources.doctor import Check
from pagewalk.sources.outcome import Who
from pagewalk.system.containers import Name
from pagewalk.system.ram_map import map_ram
from pagewalk.walking.walk import Walk
from tests import (
    armed_by_hand,
    by_hand,
    cache_by_hand,
    diff_by_hand,
    files_by_hand,
    huge_by_hand,
    kernel_by_hand,
    run_by_hand,
    share_by_hand,
    vtop_by_hand,
)
from tests.system import by_hand as system
from tests.system.by_hand import group, group_table, ram

CHECKS = [
    Check("pagemap", True, "present, swapped and shared bits of your own processes"),
    Check("page frames", False, "physical addresses are hidden: no CAP_SYS_ADMIN",
          "run as root; in a container: docker run --cap-add SYS_ADMIN, or run on the host"),
]
PROCESSES = [
    Process(1, "init", "/sbin/init", 0, 12 << 20, "", "/sbin/init splash"),
    Process(4711, "pro\x1b[1m", "/opt/a name that goes on and on" * 3, 0, 9 << 30),
]
MIB = 1 << 20
MAIN = Part(True, 1, 100 * MIB, 60 * MIB, 40 * MIB, 30 * MIB, 30 * MIB, 0, 2 * MIB, 0)
OTHER = Part(False, 2, 50 * MIB, 10 * MIB, 40 * MIB, MIB, MIB, 3 * MIB, 20 * MIB, 0)
REASON = by_hand.Withheld("pss", "frames are hidden\nrun as root", partial=True)


# Every character in a name that a terminal obeys or that is invisible, a byte that is not UTF-8,
# characters that CSV and the shell treat as special, and harmless ones.
HOSTILE = (
    "\x1b[31m\x1b[2J" + "".join(map(chr, (*range(1, 32), *range(127, 160))))
    + "\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060"
    "\u2066\u2067\u2068\u2069\ufeff\u034f\u115f\u3164\ufe0f\U000e0100\u2800"
    + b"\xff\xc3".decode(errors="surrogateescape") + '",;\\ é日本'
)


def seen(text: str) -> bool:
    """Return whether ``text`` is lines of characters that a terminal shows literally."""
    unseen = set("\u034f\u115f\u3164\ufe0f\U000e0100\u2800")
    return all(c == "\n" or (c.isprintable() and c not in unseen) for c in text)


# Fields that contain names, or sentences about them.
SPOKEN = {"name", "exe", "argv0", "script", "why", "finding", "remedy", "asked", "remarks",
          "device", "not_read", "partial", "inside", "comm", "file_system", "path", "caller",
          "exporter", "group", "command"}


def spoiled(value: Any, text: str, field: str = "") -> Any:
    """Return a command's results with ``text`` appended to each name and sentence in them."""
    if isinstance(value, str):
        return value + text if field in SPOKEN else value
    if isinstance(value, bytes):
        return value + text.encode("utf-8", "surrogateescape") if field in SPOKEN else value
    if isinstance(value, Walk):
        twin = copy.copy(value)
        for name in ("name", "exe", "vmas", "outcome"):
            setattr(twin, name, spoiled(getattr(value, name), text, name))
        return twin
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = {name: spoiled(getattr(value, name), text, name) for name in value._fields}
        return value._replace(**parts)
    if isinstance(value, (list, tuple)):
        return type(value)(spoiled(part, text, field) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: spoiled(getattr(value, f.name), text, f.name)
                 for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **parts)
    return value


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    columns = 80

    def isatty(self) -> bool:
        """Return True."""
        return True


PYTHON = Build(11, 16 << 10, 1 << 20, "")


def heap(*arenas: Part, **changed: Any) -> Heap:
    """Return a Heap with these arenas."""
    walk = by_hand.page_walk([])
    made = Heap(Who(walk.pid, walk.name, walk.exe), walk.outcome, "glibc", "/lib/libc.so.6", arenas,
                4096, 8 * MIB, 140 * MIB, 180 * MIB, exact=True, why="",
                stacks=Stacks(0, 0, 0, 0, 0), pools=None)
    return made._replace(**changed)


def arguments(name: str, *, frames: bool = True) -> tuple[Any, ...]:
    """Return what the command passes to view ``name``."""
    table = by_hand.table(frames=frames, withheld=[] if frames else [REASON])
    lines = ledger(table, by_hand.THEIRS)
    groups = by_kind(table, np.zeros(0, np.uint64))
    return {
        "show": (table, lines, groups),
        "groups": (table, groups),
        "maps": (table, list(range(len(table.vmas)))),
        "pages": ([by_hand.pages(by_hand.ROWS, frames=frames)], by_hand.walk([])),
        "explain": (table, lines, by_hand.THEIRS),
        "heap": (heap(MAIN, OTHER, stacks=Stacks(3, MIB, 4096, 1, 4096),
                      pools=PoolBytes(9, MIB, 8 * MIB, MIB), python=PYTHON),),
        "vtop": (vtop_by_hand.found("page" if frames else "swap"),),
        "doctor": (CHECKS, "Linux 6.18, x86_64, 4 KiB pages, root"),
        "processes": (PROCESSES, "Linux 6.18, x86_64, 4 KiB pages, root"),
        "ram": (ram(frames=frames),),
        "files": (files_by_hand.REPORT, files_by_hand.NAMES.get),
        "slab": (kernel_by_hand.KERNEL, kernel_by_hand.SLABS.caches),
        "map": (map_ram([system.frames(system.Run(Kind.FILE, 16), system.Run(Kind.BUDDY, 16))],
                        [(0, 32)]), by_hand.FACTS),
        "group": (group(), Name("unit", "app.service", "systemd")),
        "trigger": (ArmedRecording(armed_by_hand.TRIGGER, (8,)), "kill.parquet"),
        "cgroups": (group_table(), [(0, 0), (1, 1), (3, 2), (2, 1)],
                    {1: Name("pod", "web", "docker")}),
        "huge_of_each": (huge_by_hand.huge_of_each(frames=frames),
                         huge_by_hand.huge_of_each(frames=frames).rows),
        "huge": (huge_by_hand.huge(frames=frames, zeros=True,
                                   withheld=[] if frames else [REASON]), [0, 1, 2, 3]),
        "top": (share_by_hand.top(), share_by_hand.top().lines),
        "who": (share_by_hand.who(), share_by_hand.who().mappers),
        "overview": (share_by_hand.overview(frames=frames),
                     share_by_hand.overview(frames=frames).rows),
        "cache": (cache_by_hand.look(), cache_by_hand.look().files),
        "diff": (diff_by_hand.found(by="vma"), diff_by_hand.found(by="vma").rows),
        "run": (run_by_hand.report(looked=frames),),
        "share": (share_by_hand.family(frames=frames), [0, 1, 2]),
    }[name]


def write(format_name: str, name: str, out: io.StringIO | None = None, *, frames: bool = True,
          names: str = "", **options: Any) -> str:
    """Return what ``format_name`` writes for view ``name``; ``names`` is appended to each name."""
    out = io.StringIO() if out is None else out
    given = arguments(name, frames=frames)
    view(format_name, name)(*(spoiled(given, names) if names else given), out, **options)
    return out.getvalue()
