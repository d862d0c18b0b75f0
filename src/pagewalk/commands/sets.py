"""What the commands on several processes share: the options that name them, and who is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pagewalk.commands.options import (
    Request,
    budget_option,
    complete_target,
    of_machine,
    output_options,
    source_option,
    table_options,
    watch_option,
)
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.proc.chosen import Chosen
    from pagewalk.system.processes import Processes
    from pagewalk.system.recorded_processes import RecordedProcesses


class Named(NamedTuple):
    """The options that name a set of processes; what any of them names is in it."""

    targets: tuple[str, ...]
    tree: tuple[str, ...]
    cgroup: tuple[str, ...]
    user: tuple[str, ...]
    everyone: bool


def naming_options(command: Any) -> Any:
    """Add the options of Named to a command."""
    several: dict[str, Any] = {"multiple": True}
    options: tuple[Callable[[Any], Any], ...] = (
        click.argument("targets", nargs=-1, shell_complete=complete_target),
        click.option("--tree", metavar="PID", **several,
                     help="PID and all processes that descend from it."),
        click.option("--cgroup", metavar="NAME", **several,
                     help="The processes of a cgroup and those below it: a path, a name, a"
                          " container or a pod."),
        click.option("--user", "-u", metavar="USER", **several,
                     help="The processes of a user, by name or number."),
        click.option("--all", "-a", "everyone", is_flag=True,
                     help="All processes but this one."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def set_options(command: Any) -> Any:
    """Add the options of Named to a command, and those of Request that it has with them."""
    options = (naming_options, source_option("ebpf, kcore, drgn or procfs"), budget_option,
               table_options, watch_option, output_options)
    for option in reversed(options):
        command = option(command)
    return command


def divided(options: dict[str, Any]) -> tuple[Request, Named]:
    """Return what set_options added to a command; raises BadRequest."""
    named = Named(*(options.pop(name) for name in Named._fields))
    return of_machine(options), named


@contextmanager
def processes_of(request: Request, named: Named) -> Iterator[tuple[Processes, Named]]:
    """Yield whose processes are meant, and ``named`` without the recording that it names.

    A recording alone means all its processes. Raises BadRequest, BadRecording.
    """
    recording, rest = split(named)
    if recording is None:
        from pagewalk.system.processes import LiveProcesses

        yield LiveProcesses(request.source, request.budget_ns), named
        return
    with in_recording(request, recording) as where:
        yield where, rest


@contextmanager
def in_recording(request: Request, path: str) -> Iterator[RecordedProcesses]:
    """Yield the processes of a recording; raises BadRequest, BadRecording."""
    from pagewalk.commands import note_origin, refuse_live
    from pagewalk.commands.machine import believed
    from pagewalk.snapshot.read import Recording
    from pagewalk.system.recorded_processes import RecordedProcesses

    refuse_live(request, path)
    with closing(Recording(path)) as recording, believed(path):
        yield RecordedProcesses(recording)
        note_origin(request, path, recording.meta.host, recording.meta.time)


def split(named: Named) -> tuple[str | None, Named]:
    """Return the recording that is named, None if there is none, and what else is.

    Raises BadRequest for two of them.
    """
    from pagewalk.snapshot.places import is_recording, may_be_recording

    paths, rest = dict[str, None](), list[str]()
    for word in named.targets:
        if not may_be_recording(word):
            rest.append(word)
            continue
        path, _, process = (word, "", "") if is_recording(word) else word.rpartition(":")
        paths[path] = None
        rest += [process] * bool(process)
    if not paths:
        return None, named
    if len(paths) > 1:
        one, two, *_ = paths
        raise BadRequest(f"{one} and {two} are two recordings, and their frames have nothing to do"
                         " with one another: name one")
    rest_of = named._replace(targets=tuple(rest))
    return next(iter(paths)), rest_of if any(rest_of) else rest_of._replace(everyone=True)


def members(named: Named, where: Processes | None = None) -> list[Chosen]:
    """Return the processes that are named, of this machine or ``where``, each once.

    Raises BadRequest, BadTarget.
    """
    from pagewalk.proc.chosen import Wanted, choose
    from pagewalk.system.recorded_processes import RecordedProcesses

    if not any(named):
        raise BadRequest("name the processes: pids, names, --tree PID, --cgroup NAME, --user USER"
                         " or --all")
    below = where.below if isinstance(where, RecordedProcesses) else in_group
    pids = [pid for word in named.cgroup for pid in below(word)]
    return choose(Wanted(named.targets, named.tree, named.user, tuple(pids), named.everyone),
                  None if where is None else where.listed())


def in_group(word: str) -> list[int]:
    """Return the processes of the cgroup called ``word`` and of those below it."""
    from pagewalk.commands.groups import meant_group
    from pagewalk.proc.cgroup_search import pids_below
    from pagewalk.proc.cgroups import find_hierarchy

    found = meant_group(word, always=True)
    assert found is not None
    path, _ = found
    return [pid for pid in pids_below(find_hierarchy(), path) if pid]
