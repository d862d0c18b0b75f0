"""List the processes of this machine cheaply, and find a process by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from pagewalk.model.errors import BadTarget, BadText
from pagewalk.proc.counters import parse_statm
from pagewalk.proc.files import decode_name, read_bytes
from pagewalk.proc.kernel import architecture
from pagewalk.proc.namespace import number_in_proc, own_numbers, own_parent
from pagewalk.proc.target import Stat, parse_stat

NR_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}
KCMP_VM = 1
NUMBER = re.compile(r"[+-]?[0-9]{1,20}")


class Process(NamedTuple):
    """One row of the process list; ``rss`` in bytes, from statm, which takes no process lock."""

    pid: int
    name: str
    argv0: str
    uid: int
    rss: int


def read_processes(root: str = "/proc") -> Iterator[Process]:
    """Yield every process with an address space that this /proc lists, by its number there."""
    return (process for process, stat in read_listed(root) if stat.vsize)


def read_listed(root: str) -> Iterator[tuple[Process, Stat]]:
    # Includes kernel threads and zombies, which have no address space.
    for entry in os.listdir(root):
        if not entry.isdigit():
            continue
        base = f"{root}/{entry}"
        try:
            stat = parse_stat(read_bytes(f"{base}/stat"))
            resident = parse_statm(read_bytes(f"{base}/statm"))[1]
            argv0 = read_bytes(f"{base}/cmdline").partition(b"\0")[0]
            uid = os.stat(base).st_uid
        except (OSError, BadText):
            continue  # ended meanwhile
        yield Process(int(entry), stat.comm, decode_name(argv0), uid, resident), stat


def share_memory(first: int, second: int) -> bool:
    """Return whether two processes, by their pids in our namespace, share an address space.

    False if kcmp(2) cannot say.
    """
    import ctypes  # only used here, by the census of swap slots

    libc = ctypes.CDLL(None, use_errno=True)
    number = NR_KCMP.get(architecture())
    return number is not None and libc.syscall(number, first, second, KCMP_VM, 0, 0) == 0


def find(text: str, root: str = "/proc") -> int:
    """Return the number in /proc of the process named by TARGET ``text``, a pid or a unique name.

    A name is compared with comm and with the base name of argv[0]. This process and its parent do
    not count; a process without an address space counts only if no other has the name. Raises
    BadTarget with the candidates.
    """
    if NUMBER.fullmatch(text):
        pid = int(text)
        if not 0 < pid < 1 << 31:
            raise BadTarget(f"'{text}' is not a valid pid")
        return number_in_proc(pid)
    us = {own_numbers()[0], own_parent()}
    called = [
        (p, stat) for p, stat in read_listed(root)
        if text and p.pid not in us and text in (p.name, p.argv0, os.path.basename(p.argv0))
    ]
    exact = [p for p, stat in called if stat.vsize] or [p for p, _ in called]
    if len(exact) == 1:
        return exact[0].pid
    rows = tuple((p.pid, p.argv0 or p.name) for p in sorted(exact, key=lambda p: p.pid))
    if not exact:
        raise BadTarget(f"no process is called '{text}'; give a pid, or a name as comm shows it")
    listed = "".join(f"\n  {pid:>8}  {name}" for pid, name in rows[:20])
    more = f"\n  ... and {len(rows) - 20} more" if len(rows) > 20 else ""
    raise BadTarget(f"{len(rows)} processes are called '{text}'; give one pid:{listed}{more}", rows)
