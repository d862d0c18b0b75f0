"""List the processes of this machine cheaply, and find a process by name."""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from pagewalk.model.errors import BadTarget, BadText, in_a_line
from pagewalk.proc.command_lines import NO_WORDS, read_command_lines
from pagewalk.proc.counters import parse_statm
from pagewalk.proc.files import read_bytes
from pagewalk.proc.mounts import answered_elsewhere, real_path
from pagewalk.proc.namespace import number_in_proc, own_numbers, own_parent
from pagewalk.proc.target import Stat, parse_stat

LONGEST = 1000  # characters of a command line that are kept
VALUED = ("-cp", "-classpath", "--class-path", "--module-path", "--add-modules", "-W", "-X")
INTERPRETER = re.compile(r"(java|python|pypy|perl|ruby|node|nodejs|php|lua|bash|dash|sh)[0-9.]*")
CODE = re.compile("-[A-Za-z]?[ceE]")  # what comes next is a program itself: python -c, perl -ne
FD = re.compile(r"/(dev|proc/(self|\d+))/fd/")
NUMBER = re.compile(r"[+-]?[0-9]{1,20}")


class Process(NamedTuple):
    """One row of the process list; ``rss`` in bytes, from statm, which takes no process lock.

    ``script`` is what an interpreter runs: a file, a module, a class; else empty. ``command`` is
    how it was started, its first WORDS words and LONGEST characters.
    """

    pid: int
    name: str
    argv0: str
    uid: int
    rss: int
    script: str = ""
    command: str = ""


def read_processes(root: str = "/proc") -> Iterator[Process]:
    """Yield every process with an address space that this /proc lists, by its number there."""
    return (process for process, stat, _ in read_listed(root) if stat.vsize)


def read_listed(
    root: str, entries: Iterable[str] | None = None
) -> Iterator[tuple[Process, Stat, tuple[str, ...]]]:
    # With the first words of the command line; also kernel threads and zombies, which have no
    # address space. Only those of ``entries``, if given.
    found: list[tuple[str, Stat, int, int]] = []
    for entry in os.listdir(root) if entries is None else entries:
        if not entry.isdigit():
            continue
        base = f"{root}/{entry}"
        try:
            stat = parse_stat(read_bytes(f"{base}/stat"))
            resident = parse_statm(read_bytes(f"{base}/statm"))[1]
            found.append((entry, stat, resident, os.stat(base).st_uid))
        except (OSError, BadText):
            continue  # ended meanwhile
    lines = read_command_lines([f"{root}/{entry}" for entry, *_ in found])
    for (entry, stat, resident, uid), argv in zip(found, lines, strict=True):
        if argv is not None:
            yield (Process(int(entry), stat.comm, argv[0], uid, resident, run_by(argv),
                           in_words(argv)), stat, argv)


def in_words(argv: tuple[str, ...]) -> str:
    return " ".join(argv).rstrip(" ")[:LONGEST]


def command_of(pid: int, root: str = "/proc") -> str:
    """Return how a process was started, as in Process; empty if that is hidden, or it has ended."""
    (argv,) = read_command_lines([f"{root}/{pid}"])
    return in_words(argv or NO_WORDS)


def find(text: str, root: str = "/proc") -> int:
    """Return the number in /proc of the process named by TARGET ``text``, a pid or a unique name.

    A name is compared with comm, with argv[0] and its last part, and, if no process has it, with
    the script that an interpreter runs; with ``*`` or ``?`` it is a pattern. A path may also be
    that of the program, or a link to it. This process and its parent do not count; a process
    without an address space counts only if no other has the name.
    Raises BadTarget with the candidates.
    """
    if NUMBER.fullmatch(text):
        pid = int(text)
        if not 0 < pid < 1 << 31:
            raise BadTarget(f"'{text}' is not a valid pid")
        return number_in_proc(pid)
    us = {own_numbers()[0], own_parent()}
    others = [row for row in read_listed(root) if row[0].pid not in us]
    called = called_so(text, others, root)
    exact = [p for p, stat in called if stat.vsize] or [p for p, _ in called]
    if len(exact) == 1:
        return exact[0].pid
    rows = tuple((p.pid, f"{p.argv0 or p.name}{p.script and f' {p.script}'}")
                 for p in sorted(exact, key=lambda p: p.pid))
    if not exact:
        raise nobody_called(text)
    listed = "".join(f"\n  {pid:>8}  {name}" for pid, name in rows[:20])
    more = f"\n  ... and {len(rows) - 20} more" if len(rows) > 20 else ""
    raise BadTarget(f"{len(rows)} processes are called '{in_a_line(text)}'; give one pid, or"
                    f" the name to pagewalk share:"
                    f"{listed}{more}", rows)


def nobody_called(text: str, *, files: bool = True) -> BadTarget:
    """Return the error for a TARGET ``text`` that names nobody.

    With ``files`` it says that a file is called so: one that is a recording never gets here. Where
    a file system may never answer, it is not looked for.
    """
    may_look = files and ("/" not in text or not real_path(os.path.abspath(text),
                                                           answered_elsewhere())[1])
    also = ""
    if may_look and os.path.isfile(text):
        also = ", and the file of that name is no recording"
    elif may_look and os.path.isdir(text):
        also = ", and the folder of that name is no recording (name one in it)"
    return BadTarget(f"no process is called '{in_a_line(text)}'{also}; give a pid, or a name as"
                     " comm shows it")


Listed = tuple[Process, Stat, tuple[str, ...]]


def called_so(text: str, listed: list[Listed], root: str = "/proc") -> list[tuple[Process, Stat]]:
    """Return those of ``listed`` (see read_listed) that a TARGET ``text`` names; see find.

    Without a ``root`` no path of a program is known.
    """
    if not text:
        return []
    called = [(p, stat) for p, stat, _ in listed if fits(text, p.name, p.argv0)]
    called = called or [(p, stat) for p, stat, argv in listed if fits(text, script(argv))]
    if not called and root and text.startswith("/"):
        real, _ = real_path(text, answered_elsewhere())
        called = [(p, stat) for p, stat, _ in listed if program(f"{root}/{p.pid}/exe") == real]
    return called


def program(link: str) -> str:
    """Return the path of the program that ``link``, an exe of /proc, points at; empty if hidden."""
    try:
        return os.readlink(link).removesuffix(" (deleted)")
    except OSError:
        return ""


def script(argv: tuple[str, ...]) -> str:
    """Return the first word after the program that is no option, empty if there is none."""
    own = (word for before, word in pairwise(argv) if before not in VALUED)
    return next((word for word in own if word and not word.startswith("-")), "")


def run_by(argv: tuple[str, ...]) -> str:
    """Return the script if the program is an interpreter, empty for code in the command line."""
    found = script(argv) if INTERPRETER.fullmatch(os.path.basename(argv[0])) else ""
    code = found and any(CODE.fullmatch(word) for word in argv[1 : argv.index(found)])
    # A descriptor has a number, which tells nothing.
    named = re.fullmatch(r"[\w.+@:/-]*", found) and not FD.match(found)
    return found if named and not code else ""


def fits(text: str, *names: str) -> bool:
    # Whether it is one of `names`, or the last part of one.
    called = {*names, *map(os.path.basename, names)} - {""}
    if not {"*", "?"} & set(text):
        return text in called
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, text) for name in called)
