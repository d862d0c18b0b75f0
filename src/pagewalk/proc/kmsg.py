"""The kernel's log: which processes it killed for lack of memory, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import NamedTuple

from pagewalk.proc.files import decode_name

PATH = "/dev/kmsg"
RECORD = 8192  # bytes: PRINTK_MESSAGE_MAX is 2048, and escapes take four for one
MOST = 10_000  # records that are looked at: a flood must not keep us
KERNEL = {b"%d" % level for level in range(8)}  # a process that writes here has another facility
# dump_oom_summary and __oom_kill_process, mm/oom_kill.c. A process chooses its name, which a
# record has escaped ("\\x0a"), and whoever makes a group its path.
WHY = re.compile(rb"oom-kill:constraint=(CONSTRAINT_\w+)(,.*),pid=(\d{1,10}),uid=\d+")
LIMIT, GROUP, TASK = b",oom_memcg=", b",task_memcg=", b",task="
KILLED = re.compile(
    rb"(?:Memory cgroup out of memory|Out of memory[^:]*): Killed process (\d{1,10}) \((.*)\)"
    rb" total-vm:\d+kB, anon-rss:(\d{1,19})kB, file-rss:(\d{1,19})kB, shmem-rss:(\d{1,19})kB"
)
ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class Kill(NamedTuple):
    """A process that the kernel killed: its pid on the host, name, and RSS by kind in bytes.

    ``group`` is the cgroup that it was in, as the host's namespace shows it, None if the log does
    not tell; ``of_limit`` says whether a cgroup's limit was the cause, not the machine, and
    ``limit_cgroup`` whose, None if the log does not tell. ``log_ns`` is when, by the log's own
    clock, which may be seconds from any other: only differences count.
    """

    pid: int
    name: str
    anon: int
    file: int
    shmem: int
    group: str | None
    of_limit: bool
    log_ns: int = 0
    limit_cgroup: str | None = None


class Record(NamedTuple):
    """A record of the log: when it was made, nanoseconds of the log's clock, and its text."""

    at_ns: int
    text: bytes


class Why(NamedTuple):
    """The first record of a kill: whether a limit was the cause, and what names the groups."""

    of_limit: bool
    text: bytes


Causes = dict[int, Why]  # by pid


def open_kmsg() -> int | None:
    """Return the kernel's log, open at its end; None if we may not read it or there is none."""
    try:
        fd = os.open(PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        return None
    return fd


def read_kills(fd: int, begun: Causes) -> list[Kill]:
    """Return the kills that were logged since the last call, the oldest first.

    ``begun`` is kept between calls: one may come between the two records of a kill.
    """
    return parse_kills(read_records(fd), begun)


def read_records(fd: int) -> list[Record]:
    """Return the kernel's records since the last call, at most MOST."""
    found = []
    for _ in range(MOST):
        try:
            text = os.read(fd, RECORD)
        except BrokenPipeError:  # some were overwritten before we read them
            continue
        except OSError:
            break
        head, _, rest = text.partition(b";")
        level, _, at, *_ = *head.split(b","), b"", b"", b""
        if level in KERNEL and at.isdigit():
            found.append(Record(int(at) * 1000, rest.partition(b"\n")[0]))
    return found


def parse_kills(records: list[Record], begun: Causes) -> list[Kill]:
    """Return the kills that ``records`` tell of; what is cut off or garbled is left out.

    What precedes a kill that is not among them is left in ``begun``.
    """
    kills = []
    for at_ns, text in records:
        if why := WHY.fullmatch(text):
            begun[int(why[3])] = Why(why[1] == b"CONSTRAINT_MEMCG", why[2])
        elif killed := KILLED.match(text):
            pid = int(killed[1])
            cause = begun.pop(pid, Why(text.startswith(b"Memory cgroup"), b""))
            group, limit_cgroup = groups_in(cause, killed[2])
            anon, file, shmem = (int(word) << 10 for word in killed.groups()[2:])
            kills.append(Kill(pid, plain(killed[2]), anon, file, shmem, group, cause.of_limit,
                              at_ns, limit_cgroup))
    return kills


def groups_in(why: Why, name: bytes) -> tuple[str | None, str | None]:
    """Return the group of the process called ``name``, and the one whose limit was the cause.

    A path may contain whatever separates the two. Each way to read them is tried, of which the
    group must be the limited one or below it; what is not the same in all of them is None.
    """
    end = TASK + name
    if not why.text.endswith(end):
        return None, None
    text, found = why.text[: -len(end)], list[tuple[str, str | None]]()
    for at in places(GROUP, text):
        group = plain(text[at + len(GROUP) :])
        if not why.of_limit:
            found.append((group, None))
            continue
        for begin in places(LIMIT, text[:at]):
            limited = plain(text[begin + len(LIMIT) : at])
            if f"{group}/".startswith(f"{limited.rstrip('/')}/"):
                found.append((group, limited))
    groups, limits = ({*column} for column in zip(*found, strict=True)) if found else ((), ())
    return only(groups), only(limits)


def places(word: bytes, text: bytes) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(word + b"/"), text)]


def only(values: Collection[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None


def plain(text: bytes) -> str:
    """Return a name without the escapes of a record (msg_print_text, kernel/printk/printk.c)."""
    return decode_name(ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text))
