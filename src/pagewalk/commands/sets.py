"""What the commands on several processes share: the options that name them, and who is meant."""

from __future__ import annotations

from collections.abc import Callable
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


def members(named: Named) -> list[Chosen]:
    """Return the processes that are named, each once; raises BadRequest, BadTarget."""
    from pagewalk.proc.chosen import Wanted, choose

    if not any(named):
        raise BadRequest("name the processes: pids, names, --tree PID, --cgroup NAME, --user USER"
                         " or --all")
    pids = [pid for word in named.cgroup for pid in in_group(word)]
    return choose(Wanted(named.targets, named.tree, named.user, tuple(pids), named.everyone))


def in_group(word: str) -> list[int]:
    """Return the processes of the cgroup called ``word`` and of those below it."""
    from pagewalk.commands.groups import meant_group
    from pagewalk.proc.cgroup_search import pids_below
    from pagewalk.proc.cgroups import find_hierarchy

    found = meant_group(word, always=True)
    assert found is not None
    path, _ = found
    return [pid for pid in pids_below(find_hierarchy(), path) if pid]
