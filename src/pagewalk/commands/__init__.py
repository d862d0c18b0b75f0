"""What all commands share: the opened target, the output file, notes and exit codes.

Takes the words of the command line.
Gives output on a stream or in a file, notes on stderr, and an exit code.
Not here: how a page counts, and how a screen looks.

To add a command: one file here with a click command called ``command``, and one row in
cli.COMMANDS. Heavy imports belong inside the functions, so that ``--help`` stays instant.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.commands.options import Request, check_watch
from pagewalk.render.terminal import harmless

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.account.table import Table
    from pagewalk.model.columns import Withheld
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source
    from pagewalk.sources.outcome import Outcome
    from pagewalk.sources.recorded import RecordedSource

PARTIAL, DIFFERENCE = 3, 4
DATED = ("show", "explain")  # views of a process whose text says where and when it was recorded
# Names go into a file byte by byte, whatever the locale.
EXACT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}


@contextmanager
def put_back() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt inside the block, so that its clean-up runs.

    Where Python ignores exceptions, as in __del__, and where a library drops them, it is raised at
    the end of the block. Elsewhere Ctrl-C ends the program at once: see interrupt.
    """
    import signal

    before, came = signal.getsignal(signal.SIGINT), False

    def interrupt(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    def ignored(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)

    if before != signal.SIG_IGN:
        sys.unraisablehook = ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        if came:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = sys.__unraisablehook__


@contextmanager
def opened(request: Request, name: str) -> Iterator[tuple[Source, Callable[..., None]]]:
    """Open the target's source and the output; yield the source and what writes view ``name``.

    The target is stopped if --freeze was given; it is always resumed, and its source closed.
    """
    import time

    recorded = None if request.target.isdecimal() else in_recording(request)
    if recorded is not None:
        from pagewalk.snapshot.damage import damage

        with damage(request.target), recorded as then, output(request.output) as out:
            yield then, writer(request, render_view(request, name), out)
            if name not in DATED:
                note_origin(request, request.target, *then.space.origin)
        return
    # Before the modules that need it: numpy's own imports are deep, and where the stack of Python
    # 3.11 outgrows a chunk, each further call maps memory and unmaps it again.
    import numpy  # noqa: F401

    from pagewalk.proc.processes import find
    from pagewalk.sources import close, open_listed

    check_watch(request)
    if request.freeze:
        from pagewalk.proc.freeze import frozen
    write = render_view(request, name)
    source = open_listed(find(request.target), request.source, request.budget_ns)
    assert source.live is not None
    target = source.live.target
    look_for_garbage()
    started, stopped = time.monotonic(), False
    try:
        guard = put_back() if request.freeze else nullcontext()
        around = frozen(target) if request.freeze else nullcontext(False)
        with (guard, around as stopped, output(request.output) as out,
              telling(request, name) as erase):
            yield source, writer(request, erasing(write, erase), out)
    finally:
        close(source)
        if stopped:
            note(request, f"process {target.pid} was stopped for"
                          f" {(time.monotonic() - started) * 1e3:.1f} ms")


def render_view(request: Request, name: str) -> Callable[..., None]:
    """Return what writes view ``name`` as ``request`` wants it."""
    from pagewalk.render import view

    return view(request.format, name, request.human, request.color)


def in_recording(request: Request) -> AbstractContextManager[RecordedSource] | None:
    """Return the process that TARGET names in a recording, to be closed; None if it names none.

    Raises BadRequest for an option that only a live process can have, and what open_recorded does.
    """
    from pagewalk.snapshot.places import may_be_recording

    if not may_be_recording(request.target):
        return None
    from pagewalk.sources.recorded import open_recorded

    refuse_live(request, request.target)
    source = open_recorded(request.target)
    return None if source is None else closing(source)


def refuse_live(request: Request, recording: str) -> None:
    """Raise BadRequest for an option that only live processes can have."""
    from pagewalk.model.errors import BadRequest

    for option, given in (("--freeze", request.freeze), ("--watch", request.watch is not None),
                          ("--source", request.source not in ("", "auto"))):
        if given:
            raise BadRequest(f"{option} is about a live process, and {recording} is a recording:"
                             " leave it out")


def telling(request: Request, name: str) -> AbstractContextManager[Callable[[], None]]:
    """Show how far a long walk is, on a terminal; yield what erases that.

    Not while the target is stopped: a terminal may block. Not where pages are on their way to the
    same terminal, nor over a screen that is redrawn.
    """
    same = name == "pages" and request.output is None and sys.stdout.isatty()
    if (request.quiet or request.freeze or request.watch or same or not sys.stderr.isatty()
            or os.environ.get("TERM") == "dumb"):
        return nullcontext(lambda: None)
    from pagewalk.render.progress import shown

    return shown(sys.stderr)


def rounds(request: Request, write: Callable[..., None]) -> Generator[None, None, None]:
    """Yield once; with --watch again and again, until Ctrl-C or the end of the target."""
    if request.watch is None:
        yield
    else:
        from pagewalk.render.redrawn import rounds

        yield from rounds(request.watch, write)  # type: ignore[arg-type]


def writer(request: Request, write: Callable[..., None], out: TextIO) -> Callable[..., None]:
    """Return ``write`` on ``out``; with --watch it writes over what it wrote before."""
    if request.watch is None:
        return lambda *results, **options: write(*results, out, **options)
    from pagewalk.render.redrawn import Drawing

    return Drawing(write, out)


def erasing(write: Callable[..., None], erase: Callable[[], None]) -> Callable[..., None]:
    def clean(*results: Any, **options: Any) -> None:
        erase()
        write(*results, **options)

    return clean


def look_for_garbage() -> None:
    """Turn the garbage collector on where __main__ turned it off; it passes over what is there."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def note(request: Request, text: str) -> None:
    """Print a note for the user on stderr."""
    if not request.quiet:
        with suppress(OSError):
            print(f"pagewalk: {harmless(text)}", file=sys.stderr)


def note_origin(request: Request, path: str, host: str, time_ns: int) -> None:
    """Say where and when ``path`` was recorded, after text: its numbers look like live ones.

    Screens of DATED say it themselves; documents and tables for programs have their own ways.
    """
    if request.format == "text":
        from pagewalk.model.errors import in_a_line
        from pagewalk.render.amounts import when

        note(request, f"{in_a_line(path)} was recorded on {in_a_line(host)} at {when(time_ns)}")


def note_unsorted(request: Request, table: Table, choice: Choice | None) -> None:
    """Print that the rows are not in the order asked for, if the amounts are withheld."""
    if choice and choice.sort and table.columns.get(choice.sort.name, ()) is None:
        note(request, f"not sorted: {choice.sort.name} is withheld")


def finish(request: Request, outcome: Outcome, *, told: bool = False) -> int:
    """Print why the output is partial, unless it says so itself; return the exit code."""
    return incomplete(request, outcome.partial, told=told)


def concluded(
    request: Request, withheld: Iterable[Withheld], lines: Iterable[Line] = ()
) -> int:
    """Print which ``lines`` of a ledger are unexplained, else why the output is partial.

    Text says the latter itself. Returns the exit code.
    """
    from pagewalk.model.columns import partial

    open_lines = [line.against for line in lines if line.unexplained]
    if open_lines:
        note(request, f"unexplained: {', '.join(open_lines)}")
        return DIFFERENCE
    return incomplete(request, partial(withheld), told=request.format == "text")


def incomplete(request: Request, reasons: Sequence[str], *, told: bool) -> int:
    for reason in () if told else reasons:
        note(request, f"partial: {reason}")
    return PARTIAL if reasons else 0


@contextmanager
def read_or_not(out: TextIO) -> Iterator[None]:
    """Let whoever reads ``out`` stop reading: the rest of the block is then not written.

    The exit code of what follows it counts all the same, in a pipe too.
    """
    try:
        yield
        out.flush()
    except BrokenPipeError:
        with suppress(OSError):  # what is still buffered must not be written at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


@contextmanager
def output(path: str | None, mode: int = 0o600) -> Iterator[TextIO]:
    """Open FILE for writing, or standard output; FILE is replaced only if all goes well.

    It is readable by its owner only, unless ``mode`` says otherwise: physical addresses are worth
    hiding.
    """
    if path is None or path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    from pagewalk.model.errors import BadRequest, naming

    if not path:
        raise BadRequest("cannot write to '': the name is empty; name a file, or - for standard"
                         " output")
    if os.path.exists(path) and not os.path.isfile(path):
        with naming(path), open(path, "w", **EXACT) as out:
            yield out
        return
    from pagewalk.proc.freeze import terminating

    # Its name does not grow with FILE's, which may already be as long as a name can be. A pid would
    # not make it unique: another container may write to the same directory under the same pid.
    partial = os.path.join(os.path.dirname(path), f".pagewalk.{os.urandom(6).hex()}.partial")
    try:
        with put_back(), terminating(), naming(path):
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(fd, "w", **EXACT) as out:
                yield out
            os.replace(partial, path)
    except BaseException as err:
        # A flag would not do: a signal may arrive after the file is made and before it is set.
        if not isinstance(err, FileExistsError):
            with suppress(OSError):
                os.unlink(partial)
        if isinstance(err, OSError) and err.filename == partial:
            err.filename = path
        raise
