"""What the commands on the whole machine share: this machine, or a recording of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pagewalk.commands import note_origin
from pagewalk.commands.options import Request

if TYPE_CHECKING:
    from pagewalk.history.recorded_machine import RecordedMachine
    from pagewalk.system.machine import Machine


@contextmanager
def looked_at(request: Request, file: str | None, *, kernel: bool) -> Iterator[Machine]:
    """Yield this machine, or the one that was recorded into ``file``.

    ``kernel``: as for sources.ram.open_ram. Raises what that raises, BadRecording, BadRequest for
    an option that a recording cannot have.
    """
    if file is not None:
        with closing(recorded(request, file)) as machine, believed(file):
            yield machine
            note_recorded(request, file, machine)
        return
    from pagewalk.sources.ram import open_ram
    from pagewalk.system.machine import LiveMachine

    yield LiveMachine(open_ram(request.source, kernel=kernel))


@contextmanager
def believed(file: str) -> Iterator[None]:
    """Raise BadRecording for what only numbers that do not fit together can raise.

    A document has the types that its reader expects; what its numbers say is believed, even that a
    group is its own parent.
    """
    from pagewalk.model.errors import BadRecording

    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, AssertionError,
            RecursionError, MemoryError) as error:
        why = f"what it says does not fit together ({type(error).__name__})"
        raise BadRecording(file, why) from error


def note_recorded(request: Request, file: str, machine: RecordedMachine) -> None:
    """Say where and when it was recorded, after text."""
    meta = machine.recording.meta
    note_origin(request, file, meta.host, meta.time)


def recorded(request: Request, file: str) -> RecordedMachine:
    """Return the machine that was recorded into ``file``, to be closed; raises as looked_at."""
    from pagewalk.history.recorded_machine import RecordedMachine
    from pagewalk.model.errors import BadRequest
    from pagewalk.snapshot.read import Recording

    for option, given in (("--freeze", request.freeze), ("--watch", request.watch is not None),
                          ("--source", request.source != "auto")):
        if given:
            raise BadRequest(f"{option} is about what is live, and {file} is a recording: leave"
                             " it out")
    recording = Recording(file)
    try:
        return RecordedMachine(recording)
    except BaseException:
        recording.close()
        raise
