"""Start a command as our child, and look at its tree of processes until it ends."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread
from typing import NamedTuple

from pagewalk.history.budget import Look, Watched, Worst, look_at_tree
from pagewalk.history.verdicts import Verdict, verdicts
from pagewalk.model.errors import NoSuchCommand, NotStarted, PagewalkError
from pagewalk.proc.files import read_bytes
from pagewalk.proc.stall import Stall
from pagewalk.proc.tree import Holds, adopting_orphans, descendants, own_children

PASSED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
          signal.SIGUSR2}
HEARD = {*PASSED, signal.SIGCHLD}
DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)  # which Python ignores
SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h
BUSY = 19  # times as long as a look has kept the CPU, nothing is looked at: a twentieth of the time
YOUNG = 4  # at first looks are closer together: a part in these of the tree's age apart
OURS = "OPENBLAS_NUM_THREADS"


class Report(NamedTuple):
    """How a command ended, and what its tree of processes held.

    ``code`` is its exit code, None if ``signal`` ended it. ``seconds`` is how long it ran,
    ``unseen`` how much of that came after the last look at it while it ran. ``left`` are processes
    of the tree that outlived it. ``stall_ns`` is the longest read that may have held a lock of one.
    """

    command: tuple[str, ...]
    code: int | None
    signal: int | None
    seconds: float
    unseen: float
    every: float
    seen: Watched
    verdicts: tuple[Verdict, ...]
    left: tuple[Holds, ...]
    not_looked: tuple[str, ...]
    stall_ns: int

    @property
    def exceeded(self) -> list[Verdict]:
        """Return the budgets that were exceeded."""
        return [one for one in self.verdicts if one.exceeded]

    @property
    def unknown(self) -> list[Verdict]:
        """Return the budgets of which it is not known."""
        return [one for one in self.verdicts if one.limit is not None and one.exceeded is None]

    @property
    def worst(self) -> list[Worst]:
        """Return the worst moment of each budget that was exceeded, as far as it was seen."""
        return [self.seen.worst[one.measure] for one in self.exceeded
                if one.measure in self.seen.worst]


class Tree:
    """A command that runs, its descendants, and what was seen of them."""

    def __init__(
        self, budgets: Mapping[str, int], every: float, without: Collection[int]
    ) -> None:
        self.every, self.began, self.stall = every, time.monotonic(), Stall()
        self.seen = Watched(budgets, self.describe)
        self.not_looked = dict[str, None]()
        self.next, self.without, self.aside = self.began, without, 0.0
        self.described: Worst | None = None
        self.importing: Thread | None = None

    def pids(self) -> list[int]:
        """Return the numbers in /proc of the processes of the tree."""
        return descendants(self.without)

    def describe(self, measure: str, look: Look) -> Worst:
        """Return what the tree is made of now; that takes long, and is rare."""
        if self.described is not None and self.described.look is look:
            return self.described._replace(measure=measure)
        began = time.thread_time()
        from pagewalk.history.made_of import worst_moment

        self.described = worst_moment(measure, look, self.began)
        self.aside += time.thread_time() - began
        return self.described

    def be_ready(self, look: Look) -> None:
        """Import what describes a tree once half of a budget is used up, beside further looks.

        It takes 0.2 s, in which a program that grows has grown past its peak.
        """
        if self.importing is None and any(
                2 * look.amounts[key].low > limit for key, limit in self.seen.budgets.items()):
            self.importing = Thread(target=import_module, args=("pagewalk.history.made_of",))
            self.importing.start()

    def look(self) -> Look | None:
        """Look at all that is there, and set when to look again; None if that failed."""
        spent, found, self.aside = time.thread_time(), None, 0.0
        try:
            found = look_at_tree(self.pids(), self.began, self.stall)
            self.seen.add(found)
            self.be_ready(found)
        except (PagewalkError, OSError, MemoryError) as error:  # the command goes on all the same
            self.not_looked[str(error) or type(error).__name__] = None
        now = time.monotonic()
        idle = min(self.every, (now - self.began) / YOUNG)
        self.next = now + max(idle, BUSY * (time.thread_time() - spent - self.aside))
        return found


def run_with_budgets(
    command: Sequence[str], budgets: Mapping[str, int], every: float, *, wait: bool = False
) -> Report:
    """Run ``command`` to its end beside ``budgets``, bytes by the key of TITLES.

    Its tree is looked at ``every`` so many seconds, less often where that would take more than a
    twentieth of the time. With ``wait`` the end is that of the last process of the tree. Raises
    NotStarted, and PagewalkError where orphans cannot be adopted.
    """
    without = own_children()  # of a program that has executed this one
    with adopting_orphans(), blocked() as mask:
        pid = started(command, mask)
        tree = Tree(budgets, every, without)
        status, ended = watch(tree, pid, wait=wait)
        last = tree.began + tree.seen.last.at if tree.seen.last else tree.began
        left = tree.look() if tree.pids() else None
    told = verdicts(tree.seen)
    killed = os.WIFSIGNALED(status)
    return Report(
        tuple(command), None if killed else os.WEXITSTATUS(status),
        os.WTERMSIG(status) if killed else None, ended - tree.began, ended - last, every, tree.seen,
        tuple(told), left.holds if left else (),
        tuple(tree.not_looked), tree.stall.longest_ns)


@contextmanager
def blocked() -> Iterator[set[int]]:
    """Hold back the signals that `watch` waits for; yield the mask that there was."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody tells how it ended
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        yield {*before}
    finally:
        while signal.sigtimedwait(HEARD, 0):
            pass  # it was meant for the command, which has ended
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def started(command: Sequence[str], mask: set[int]) -> int:
    """Start ``command`` with the environment and the signals that we were given; return its pid."""
    try:
        if not command[0]:  # which Python does not even try
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.posix_spawnp(command[0], [*command], environment(), setsigmask=mask,
                               setsigdef=DEFAULT)
    except FileNotFoundError as error:
        raise NoSuchCommand(command[0], os.strerror(errno.ENOENT).lower(), "give its path, or the"
                            " name of a program on PATH") from error
    except OSError as error:
        raise NotStarted(command[0], (error.strerror or "").lower(),
                         "give a program that you may execute") from error


def environment() -> dict[str, str]:
    """Return the environment without what our own command line has set for numpy."""
    given = {row.partition(b"=")[0] for row in read_bytes("/proc/self/environ").split(b"\0")}
    return {name: value for name, value in os.environ.items()
            if name != OURS or name.encode() in given}


def watch(tree: Tree, pid: int, *, wait: bool) -> tuple[int, float]:
    """Look at ``tree`` again and again until ``pid`` has ended; return its status and that time.

    With ``wait`` until no process of the tree is left, or until a signal asks to end it.
    """
    status = None
    while True:
        now = time.monotonic()
        if now >= tree.next:
            tree.look()
        heard = signal.sigtimedwait(HEARD, max(0.0, tree.next - time.monotonic()))
        # Between two waits another thread of this process may take the signal, and ignore it.
        if heard is None or heard.si_signo == signal.SIGCHLD:
            status = status_of(pid) if status is None else status
            reap(tree, pid)
            if status is not None and not (wait and tree.pids()):
                return status, time.monotonic()
        elif status is not None:
            return status, time.monotonic()
        elif heard.si_code != SI_KERNEL:  # a terminal has sent it to the command as well
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, heard.si_signo)


def status_of(pid: int) -> int | None:
    """Return the status of a child that has ended, None if it runs, or is none."""
    with suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)
        return status if found else None
    return None


def reap(tree: Tree, pid: int) -> None:
    """Wait for the orphans of ``tree`` that have ended, so that no zombie stays."""
    for one in {*own_children()} - {*tree.without, pid}:
        status_of(one)
