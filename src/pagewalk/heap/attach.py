"""Ask a HotSpot JVM about itself over the socket that jcmd uses.

The JVM opens it when it gets SIGQUIT and finds a certain file, and starts a thread that answers.
This is a client of our own: a JRE has no jcmd, and that of a JDK would be a program of the target's
choosing, run with our rights. (os/posix/attachListener_posix.cpp of HotSpot)
"""

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pagewalk.model.errors import NotPermitted
from pagewalk.proc.files import numbers
from pagewalk.proc.freeze import send
from pagewalk.proc.target import Target

PATIENCE_S, STEP_S = 5.0, 0.01
LARGEST, SHORT = 1 << 20, 200  # of an answer, of a refusal
NOT_CAUGHT = "it does not catch SIGQUIT, which would end it"
OTHERS = "it answers only its own user (uid {}) and root"
NOT_ITS_OWN = "{} in its /tmp is not its own"
STOPPED = "it is stopped"
SILENT = "it did not answer within {:g} s"


class Unanswered(Exception):
    """A JVM was not asked, or did not answer; the text says why."""


class Answers(NamedTuple):
    """What a JVM said to each command; ``started``: it started its attach listener for us.

    ``took_ns``: how long that took in all. ``why`` something is missing, else empty.
    """

    texts: dict[str, str]
    started: bool
    took_ns: int
    why: str


class Owner(NamedTuple):
    # Whom a JVM answers, its effective user and group; its number in its own PID namespace; and
    # whether it catches SIGQUIT, which would end it otherwise.
    uid: int
    gid: int
    pid: int
    catches: bool


def ask(target: Target, commands: Iterable[str], patience_s: float = PATIENCE_S) -> Answers:
    """Return what the JVM ``target`` answers to diagnostic ``commands``, as ``GC.heap_info``.

    It has ``patience_s`` in all, and LARGEST bytes for each answer. Raises ProcessGone.
    """
    began = time.monotonic()
    texts: dict[str, str] = {}
    missing: list[str] = []
    started = False
    try:
        owner = owner_of(target)
        with folder_of(target) as folder, acting_as(owner):
            file, started = attached(target, folder, owner, began + patience_s)
            try:
                for command in commands:
                    said, text = answer(file, command, began + patience_s)
                    if said:
                        texts[command] = text
                    else:
                        missing.append(f"{command}: {text[:SHORT] or 'no answer'}")
            finally:
                os.close(file)
    except TimeoutError:
        missing.append(SILENT.format(patience_s))
    except (Unanswered, NotPermitted) as err:
        missing.append(str(err))
    return Answers(texts, started, int((time.monotonic() - began) * 1e9), "; ".join(missing))


@contextmanager
def trying(what: str) -> Iterator[None]:
    # Turn an OSError into the reason that it is.
    try:
        yield
    except TimeoutError:
        raise
    except OSError as err:
        raise Unanswered(f"cannot {what}: {os.strerror(err.errno or 0).lower()}") from None


def owner_of(target: Target) -> Owner:
    if target.state() in "Tt":
        raise Unanswered(STOPPED)
    status = target.read("status")
    uid, gid = (numbers(status, field)[1] for field in (b"Uid", b"Gid"))
    caught = (numbers(status, b"SigCgt", 16) or [0])[0]
    return Owner(uid, gid, (numbers(status, b"NSpid") or [target.pid])[-1],
                 bool(caught >> (signal.SIGQUIT - 1) & 1))


@contextmanager
def folder_of(target: Target) -> Iterator[int]:
    # A descriptor of its /tmp. Others may choose what is there: no link is followed.
    root = target.open("root")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with trying("open its /tmp"):
            folder = os.open("tmp", flags, dir_fd=root)
    finally:
        os.close(root)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def acting_as(owner: Owner) -> Iterator[None]:
    # The JVM answers whoever has its own user and group; older ones do not even answer root.
    uid, gid = os.geteuid(), os.getegid()
    if uid not in (0, owner.uid):
        raise Unanswered(OTHERS.format(owner.uid))
    try:
        with trying(f"act as its user {owner.uid} and group {owner.gid}"):
            if gid != owner.gid:
                os.setegid(owner.gid)
            if uid != owner.uid:
                os.seteuid(owner.uid)
        yield
    finally:
        if os.geteuid() != uid:
            os.seteuid(uid)
        if os.getegid() != gid:
            os.setegid(gid)


def attached(target: Target, folder: int, owner: Owner, until: float) -> tuple[int, bool]:
    """Return a descriptor of the JVM's socket, and whether it was opened for us.

    Raises Unanswered, TimeoutError after ``until`` (of time.monotonic), ProcessGone.
    """
    name = f".java_pid{owner.pid}"
    file = its_own(folder, name, owner, stat.S_ISSOCK)
    if file is not None:
        return file, False
    if not owner.catches:
        raise Unanswered(NOT_CAUGHT)
    with marked(folder, owner):
        send(target, signal.SIGQUIT)
        while (file := its_own(folder, name, owner, stat.S_ISSOCK)) is None:
            if time.monotonic() > until:
                raise TimeoutError
            target.state()  # raises if it has ended
            time.sleep(STEP_S)
    return file, True


@contextmanager
def marked(folder: int, owner: Owner) -> Iterator[None]:
    # The file that tells SIGQUIT from a wish for a thread dump. It may be another client's.
    name = f".attach_pid{owner.pid}"
    others = its_own(folder, name, owner, stat.S_ISREG)
    if others is not None:
        os.close(others)
        yield
        return
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with trying(f"put {name} into its /tmp"):
        os.close(os.open(name, flags, 0o600, dir_fd=folder))
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)


def its_own(folder: int, name: str, owner: Owner, kind: Callable[[int], bool]) -> int | None:
    # A descriptor of what only the JVM's user can have put there, None if there is nothing.
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with trying(f"look at {name} in its /tmp"):
        try:
            file = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            return None
    found = os.fstat(file)
    if not kind(found.st_mode) or found.st_uid != owner.uid:
        os.close(file)
        raise Unanswered(NOT_ITS_OWN.format(name))
    return file


def answer(file: int, command: str, until: float) -> tuple[bool, str]:
    """Return whether the JVM behind the socket ``file`` carried out ``command``, and its text.

    Raises OSError, TimeoutError after ``until``, Unanswered if the text is too long.
    """
    raw = b""
    with trying("speak to its socket"), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(max(until - time.monotonic(), STEP_S))
        line.connect(f"/proc/self/fd/{file}")
        line.sendall(b"1\0jcmd\0" + command.encode() + b"\0\0\0")
        while part := line.recv(1 << 16):
            raw += part
            if len(raw) > LARGEST:
                raise Unanswered(f"its answer to {command} is longer than {LARGEST >> 20} MiB")
            line.settimeout(max(until - time.monotonic(), STEP_S))
            if time.monotonic() > until:
                raise TimeoutError
    code, _, text = raw.partition(b"\n")
    return code == b"0", text.decode(errors="replace").strip("\n")
