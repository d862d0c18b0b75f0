"""The kernel's own totals from status, statm, stat, smaps and smaps_rollup: what we explain.

The kernel's "kB" means KiB. It is converted to bytes here and nowhere else.
Source: Documentation/filesystems/proc.rst, fs/proc/task_mmu.c.
"""

import mmap
import re
from typing import NamedTuple

from pagewalk.model.errors import BadText, PagewalkError, ProcessGone
from pagewalk.model.facts import Facts
from pagewalk.proc.files import decode_name, lines, number, read_bytes, rows
from pagewalk.proc.smaps import LastSmaps, Smaps, read_smaps
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target, parse_stat

PAGE = mmap.PAGESIZE
PMAP_TOTAL = re.compile(rb"(?m)^ *total +(\d{1,20})K\n\Z")
STATM_FIELDS = ("size", "resident", "shared", "text", "lib", "data", "dt")
STATM = re.compile(rb"(?m)^" + rb" ".join([rb"(\d{1,20})"] * 7) + rb"\n")


def read_status(target: Target) -> dict[str, int]:
    """Return the ``kB`` lines of /proc/PID/status in bytes, keyed by the kernel's name (``VmRSS``).

    Raises ProcessGone when status has no memory lines because the memory is gone, and BadText.
    """
    found = in_bytes(target.read("status"))
    if "VmSize" not in found:
        raise ProcessGone(target.pid, "ended")
    return found


def in_bytes(text: bytes) -> dict[str, int]:
    """Return the ``kB`` lines of a status file in bytes, keyed by the kernel's name.

    Raises BadText.
    """
    found: dict[str, int] = {}
    for at, line in enumerate(lines(text, "status"), 1):
        key, _, value = line.partition(b":")
        if not value.endswith(b" kB") or key == b"Name":  # a process may be called "5 kB"
            continue
        try:
            found.setdefault(decode_name(key), number(value[:-3].strip(b" \t")) << 10)
        except ValueError:
            raise BadText("status", at, line) from None
    return found


def parse_statm(text: bytes) -> list[int]:
    """Return the seven fields of a statm file, in bytes; raises BadText."""
    found = rows(STATM, text, "statm")
    if len(found) != 1:
        raise BadText("statm", 1, text)
    return [int(word) * PAGE for word in found[0]]


class Theirs(NamedTuple):
    """The kernel's own numbers, in bytes; ``None`` where a file was not read or not readable.

    ``pmap`` is the total that pmap(1) prints. ``threads`` bounds how far the counters of some
    kernels may lag. ``not_read`` says which files were not read, and why.
    """

    status: dict[str, int]
    statm: dict[str, int]
    stat: dict[str, int]
    smaps: Smaps | None = None
    rollup: Smaps | None = None
    pmap: int | None = None
    threads: int = 1
    not_read: tuple[str, ...] = ()


def lag(theirs: Theirs, facts: Facts, counters: int, *, always: bool = False) -> int:
    """Return how far the sum of ``counters`` RSS counters of the kernel may lag, in bytes.

    The rss of stat is an approximate read on every kernel (``always``); status and statm are
    exact since 6.18.
    """
    # Where the sum was backported, stat's approximate rss differs from statm's.
    summed = not facts.counters_by_thread and (
        facts.counters_summed or theirs.stat["rss"] != theirs.statm["resident"])
    if summed and not always:
        return 0
    return counters * facts.counter_lag(theirs.threads)


def read_theirs(target: Target, stall: Stall, *files: str, last: LastSmaps | None = None) -> Theirs:
    """Return the kernel's own numbers for ``target``.

    ``files`` are any of "smaps" and "smaps_rollup", whose reads take the target's lock; ``last`` is
    the previous smaps text. A file that cannot be read is left out and named in ``not_read``.
    Raises ProcessGone.
    """
    tables: dict[str, Smaps] = {}
    not_read = []
    for name in files:
        try:
            tables[name] = read_smaps(target, stall, name, last if name == "smaps" else None)
        except ProcessGone:
            raise
        except PagewalkError as err:
            not_read.append(f"{name}: {err}")
    statm, stat = parse_statm(target.read("statm")), parse_stat(target.read("stat"))
    return Theirs(
        # Read last: if the memory is still there now, it was there while the others were read.
        status=read_status(target),
        statm=dict(zip(STATM_FIELDS, statm, strict=True)),
        stat={"rss": stat.rss * PAGE, "vsize": stat.vsize},
        smaps=tables.get("smaps"),
        rollup=tables.get("smaps_rollup"),
        threads=stat.threads,
        not_read=tuple(not_read),
    )


def read_pmap(pid: int) -> int | None:
    """Return the total that pmap(1) prints for ``pid``, in bytes.

    None where pmap is not installed or finds nothing: once the main thread of a process has exited,
    /proc/PID/maps is empty, and pmap reads no other file.

    We run the program itself, because the ledger is about the numbers people see.
    """
    import shutil  # these two take 8 ms to import, and only explain needs them
    import subprocess

    program = shutil.which("pmap")
    if program is None:
        return None
    ran = subprocess.run([program, str(pid)], capture_output=True, check=False)
    total = PMAP_TOTAL.search(ran.stdout)
    return int(total[1]) << 10 or None if total else None


def lazily_freed() -> bool:
    """Return whether any process may have called MADV_FREE since boot (pglazyfree of vmstat)."""
    try:
        text = read_bytes("/proc/vmstat")
    except OSError:
        return True
    found = re.search(rb"(?m)^pglazyfree (\d+)$", text)
    return found is None or int(found[1]) > 0
