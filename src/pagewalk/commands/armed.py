"""pagewalk record --armed: wait for a cgroup to be in trouble, and record it then."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pagewalk import commands
from pagewalk.commands.options import Duration, Request
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.history.armed import Written
    from pagewalk.history.armed_recording import ArmedRecording
    from pagewalk.history.record import Made
    from pagewalk.history.record_space import How
    from pagewalk.history.trigger import Trigger


class Arming(NamedTuple):
    """The options of an armed recorder, None where they were not given."""

    armed: str | None
    near: float | None
    pressure: float | None
    at_most: float | None
    keep: int | None
    look: float | None
    hold: bool


class Fraction(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A part of a whole: "90%", or 0.9."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)(%?)", str(value))
        part = float(found[1]) / (100 if found[2] else 1) if found else -1
        if not 0 <= part <= 1:
            self.fail(f"'{value}' is neither a percentage such as 90% nor a fraction such as 0.9",
                      param, ctx)
        return part


def arming_options(command: Any) -> Any:
    """Add the options of Arming to a command."""
    options = (
        click.option("--armed", metavar="CGROUP",
                     help="Wait, and record CGROUP into the folder -o when it nears its limit, when"
                          " it waits for memory, and when something of it is killed."),
        click.option("--near", metavar="FRACTION", type=Fraction(),
                     help="Record when this part of the limit is used, page cache not counted"
                          " (default: 90%)."),
        click.option("--pressure", metavar="FRACTION", type=Fraction(),
                     help="Record when tasks wait for memory for this part of the time; 0: never"
                          " (default: 10%)."),
        click.option("--at-most", metavar="TIME", type=Duration(zero=True),
                     help="At most one recording of a reason in TIME (default: 1m)."),
        click.option("--keep", metavar="N", type=click.IntRange(1),
                     help="Keep the newest N recordings of a reason (default: 10)."),
        click.option("--look", metavar="TIME", type=Duration(zero=True),
                     help="On cgroup v2, which reports no amount, read it after each TIME; 0: never"
                          " (default: 10s)."),
        click.option("--hold", is_flag=True,
                     help="On cgroup v1: processes wait at the limit until they are recorded."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_unarmed(asked: Arming) -> None:
    """Raise BadRequest for an option that only an armed recorder has."""
    for name, value in asked._asdict().items():
        if value is not None and value is not False:
            raise BadRequest(f"--{name.replace('_', '-')} is about --armed CGROUP: add that, or"
                             " leave it out")


def run(request: Request, asked: Arming, how: How) -> int:
    """Record the cgroup each time it is in trouble, until it is removed or we are ended."""
    from pagewalk.commands.groups import meant_group
    from pagewalk.history.armed import arm
    from pagewalk.history.machine_rows import Counted
    from pagewalk.history.record import Extras, record
    from pagewalk.history.trigger import ARMED, DOCUMENT, scrubbed
    from pagewalk.history.waiting import REMOVED
    from pagewalk.model.errors import GroupGone
    from pagewalk.proc.cgroup_search import check_controller
    from pagewalk.proc.cgroups import find_hierarchy, open_group
    from pagewalk.proc.chosen import choose_by_pid
    from pagewalk.proc.freeze import terminating

    assert asked.armed is not None and request.output is not None
    meant, hierarchy = meant_group(asked.armed, always=True), find_hierarchy()
    assert meant is not None
    path, name = meant
    check_controller(path, hierarchy)
    with open_group(hierarchy, path) as group:
        inode = os.fstat(group).st_ino

    def write(file: str, trigger: Trigger, pids: list[int]) -> Made:
        # What the group is charged for, frame by frame, would take seconds.
        documents = ((DOCUMENT, scrubbed(trigger) if how.scrub else trigger),)
        removed, numbers = REMOVED in trigger.told, trigger.now.numbers
        counted = None if removed else Counted(path, inode, name, trigger.version, numbers)
        extras = Extras(counted=counted, documents=documents, alone=trigger.reason != ARMED)
        what = "a cgroup" if how.scrub else f"--cgroup {path}"
        return record(file, choose_by_pid(pids), what, how, trigger.reason, extras)

    try:
        with commands.put_back(), terminating():
            arm(path, hierarchy, armed(asked, folder(request.output), scrub=how.scrub), write,
                lambda said: tell(request, said))
    except SystemExit:  # SIGTERM, which is how a service is stopped
        return 0
    raise GroupGone(path)


def armed(asked: Arming, into: str, *, scrub: bool) -> Any:
    from pagewalk.history.armed import Armed

    given: dict[str, Any] = {
        "near": asked.near, "pressure": asked.pressure, "at_most_s": asked.at_most,
        "keep": asked.keep, "look_s": asked.look,
    }
    return Armed(into, hold=asked.hold, scrub=scrub,
                 **{name: value for name, value in given.items() if value is not None})


def folder(path: str) -> str:
    """Return the folder to record into, which is made if it is not there; raises BadRequest."""
    from pagewalk.snapshot.places import is_url

    if is_url(path):
        raise BadRequest("--armed records onto a disk, which answers when there is no time: -o must"
                         " be a folder")
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadRequest(f"--armed writes several recordings: -o {path} is no folder") from None
    return path


def tell(request: Request, said: str | Written) -> None:
    """Print what happens: what was recorded to stdout, all else as a note."""
    from pagewalk.render.armed_words import written
    from pagewalk.render.terminal import harmless

    if isinstance(said, str):
        commands.note(request, said)
    elif not request.quiet:
        click.echo(harmless(written(said)))


def armed_recording(word: str) -> ArmedRecording | None:
    """Return what TARGET ``word`` tells if the armed recorder made it, else None.

    Raises BadRecording.
    """
    from pagewalk.snapshot.places import is_recording

    if not is_recording(word):
        return None
    from pagewalk.history.armed_recording import read_armed

    return read_armed(word)


def explain_armed(request: Request, found: ArmedRecording) -> int:
    """Write why a recording was made, and what the group was made of; return the exit code."""
    from pagewalk.render import view

    write = view(request.format, "trigger", request.human, request.color)
    with commands.output(request.output) as out:
        write(found, request.target, out)
    return commands.concluded(request, found.withheld)
