"""pagewalk diff: what changed between two recordings, or since one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    budget_option,
    complete_target,
    format_option,
    output_options,
    source_option,
    table_options,
)
from pagewalk.model.errors import BadRequest, BadTarget, ProcessGone, in_a_line

if TYPE_CHECKING:
    from pagewalk.history.diff import Diff, Side
    from pagewalk.history.matching import Matched, Member
    from pagewalk.history.sides import LiveSide, RecordedSide

    Meant = tuple[RecordedSide, list[Member], bool]  # see opened

BY = ("kind", "file", "vma", "process", "cache", "cgroup")
OF_MACHINE = ("cache", "cgroup")  # which processes have none of

@click.command("diff", short_help="What grew between two recordings, or since one.")
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="[AFTER]", required=False, shell_complete=complete_target)
@click.option("--live", is_flag=True, help="Compare BEFORE with its processes as they are now.")
@click.option("--by", default="kind", metavar="WHAT", show_default=True, type=click.Choice(BY),
              help="What the rows are: kind, file, vma or process; of RAM and cgroups kind, file,"
                   " cache or cgroup.")
@click.option("--ram", is_flag=True,
              help="Compare what RAM, or a cgroup's charge, is used for, not processes.")
@click.option("--max-growth", metavar="SIZE",
              help="Exit with 4 if RSS, swap and hugetlb pages together, or a cgroup's charge, grew"
                   " by more: 50M.")
@source_option("ebpf, kcore, drgn or procfs")
@format_option("text", "json", "csv")
@click.option("--freeze", is_flag=True,
              help="Stop each live process (SIGSTOP) while it is walked, then resume it.")
@budget_option
@table_options
@output_options
def command(
    before: str, after: str | None, live: bool, by: str, ram: bool, max_growth: str | None,
    **options: Any,
) -> int:
    """Show what changed from BEFORE to AFTER, page by page: what grew, and how.

    BEFORE is a recording, AFTER a recording, a pid or a name; FILE:PID and FILE:NAME are one
    process of several. The directory that record --every fills is compared from its first recording
    to its last.

    \b
    pagewalk record $$ -o before.pagewalk
    pagewalk diff before.pagewalk $$
    pagewalk diff before.pagewalk --live --by vma
    pagewalk diff before.pagewalk $$ --max-growth 50M
    """
    from pagewalk.history.diff_machine import RAM
    from pagewalk.model.sizes import parse_budget
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN, choose
    from pagewalk.render.diff_table import amount

    limit = None if max_growth is None else parse_budget(max_growth)
    request = Request(**options)
    choice = choose("diff", request.columns, request.sort, request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    found = looked(request, before, after, live, by, ram=ram or by in OF_MACHINE)
    if limit is not None and found.of == RAM:
        raise BadRequest("--max-growth is about processes, or about a cgroup that record --cgroup"
                         " recorded: all of RAM does not grow")
    write = view(request.format, "diff", request.human, request.color)
    with commands.output(request.output) as out, commands.read_or_not(out):
        write(found, choice.rows(found.rows, amount), out, columns=choice.columns)
    return concluded(request, found, limit)


def concluded(request: Request, found: Diff, limit: int | None) -> int:
    """Print what grew too much, or what remains open; return the exit code."""
    from pagewalk.render.amounts import human
    from pagewalk.render.diff_table import at, title

    if found.unexplained:
        commands.note(request, f"unexplained: {found.unexplained} bytes of the change of RSS")
        return commands.DIFFERENCE
    if limit is not None and found.growth > limit:
        # By file or cache the charge of a cgroup may have no rows that changed.
        most = max(found.rows or found.kinds, key=lambda row: row.change + row.swap + row.hugetlb)
        grown = most.change + most.swap + most.hugetlb
        beyond = (f", {human(found.growth - limit)} more than the budget of {human(limit)}" if limit
                  else "; the budget allows none")
        commands.note(request, f"grew by {human(found.growth)}{beyond}; most of all:"
                               f" {title(most)}{at(most)}, by {human(grown)}")
        return commands.DIFFERENCE
    return commands.concluded(request, found.withheld)


def looked(
    request: Request, before: str, after: str | None, live: bool, by: str, *, ram: bool
) -> Diff:
    """Return what changed; raises BadRequest for words that do not name two sides."""
    from pagewalk.sources.recorded_target import named_recording

    if live and after is not None:
        raise BadRequest("--live is in place of AFTER: leave out one of them")
    if not live and after is None:
        before, after = ends_of(before)
    with opened(before) as old:
        if after is None or named_recording(after) is None:
            return since(request, old, after, by, ram=ram)
        if request.source != "auto":
            raise BadRequest("--source is about a live process, and both are recordings: leave"
                             " it out")
        if request.freeze:
            raise BadRequest("--freeze is about a live process, and both are recordings: leave"
                             " it out")
        with opened(after) as new:
            return between(request, old, new, by, ram=ram)


def between(request: Request, old: Meant, new: Meant, by: str, *, ram: bool) -> Diff:
    """Return what changed from one recording to another; raises BadTarget."""
    from pagewalk.history.diff import diff
    from pagewalk.history.diff_machine import diff_machine

    (one, olds, whole), (other, news, all_new) = old, new
    if ram or not (has_set(one, olds) and has_set(other, news)):
        return diff_machine(one.recording, other.recording, (one.moment, other.moment), by)
    for side, members in ((one, olds), (other, news)):
        if not members:
            path = side.recording.path
            commands.note(request, f"{path} has no process: what its cgroup was charged for says"
                                   f" pagewalk explain {path}")
    return diff(one, other, paired(one, olds, whole, other, news, all_new), by)


def since(request: Request, old: Meant, after: str | None, by: str, *, ram: bool) -> Diff:
    """Return what changed from a recording to now: in the process ``after``, or in all it has.

    Raises BadRequest, BadTarget, ProcessGone.
    """
    from pagewalk.history.diff import diff
    from pagewalk.history.sides import LiveSide
    from pagewalk.render.amounts import brief
    from pagewalk.sources.recorded_target import no_process

    one, olds, whole = old
    if not ram and one.recording.meta.reason and not olds:
        raise no_process(one.recording)
    if ram or not olds:
        raise BadRequest("RAM and cgroups are compared between two recordings: record them"
                         " again, and name both files")
    now = LiveSide(request.source, request.budget_ns, one, freeze=request.freeze)
    with commands.put_back() if request.freeze else nullcontext():
        pairs = still_there(one, olds, now) if after is None else paired(
            one, olds, whole, now, named(after), False)
        found = diff(one, now, pairs, by)
    if now.stopped_ns:
        commands.note(request, f"no process was stopped for longer than {brief(now.stopped_ns)}")
    return found


def has_set(side: RecordedSide, members: Sequence[Member]) -> bool:
    """Return whether ``side`` is of processes; an armed recorder's may be of none."""
    return bool(members or side.recording.meta.reason)


def ends_of(word: str) -> tuple[str, str]:
    """Return the first and the last recording of the data set ``word``; raises BadRequest."""
    from pagewalk.snapshot.places import is_dataset, recordings_directly_in, recordings_in

    if not is_dataset(word):
        if recordings_directly_in(word):
            raise BadRequest(f"{in_a_line(word)} is a folder of recordings: name two of its files")
        raise BadRequest("name what to compare it with: a second recording, a process, or --live")
    found = recordings_in(word)
    hosts = sorted({entry.host for entry in found})
    if len(hosts) > 1:
        named_ones = ", ".join(hosts[:5]) + " and others" * (len(hosts) > 5)
        raise BadRequest(f"{in_a_line(word)} has recordings of {len(hosts)} hosts, {named_ones}:"
                         " name two of its files")
    if len(found) < 2:
        raise BadRequest(f"{in_a_line(word)} has a single recording: there is nothing to compare it"
                         " with")
    return found[0].path, found[-1].path


@contextmanager
def opened(word: str) -> Iterator[Meant]:
    """Open the recording that ``word`` names; yield it, the processes meant, and if it is all.

    Raises BadTarget, BadRecording.
    """
    from pagewalk.history.diff_machine import has_machine
    from pagewalk.history.sides import RecordedSide
    from pagewalk.snapshot.read import Recording
    from pagewalk.sources.recorded_target import named_recording, one_of

    found = named_recording(word)
    if found is None:
        if os.path.isdir(word):
            raise BadTarget(f"{in_a_line(word)} is a folder: name one recording in it")
        raise BadTarget(f"'{in_a_line(word)}' is not a recording: pagewalk record makes one")
    path, process = found
    with closing(Recording(path)) as recording:
        side = RecordedSide(recording)
        members = side.members()
        if process or not (members or has_machine(recording)):
            pid = one_of(recording, process)
            members = [one for one in members if one.pid == pid]
        if not process:
            side.note_unread()
        yield side, members, not process


def named(word: str) -> list[Member]:
    """Return the live process that ``word`` names; raises BadTarget, ProcessGone."""
    from pagewalk.history.sides import live_members
    from pagewalk.proc.chosen import Wanted, choose
    from pagewalk.proc.processes import find

    return live_members(choose(Wanted((str(find(word)),))))


def paired(
    one: Side, olds: list[Member], whole: bool, other: Side, news: list[Member], all_new: bool
) -> Matched:
    """Return which process is compared with which; raises BadTarget if none can be.

    One on each side are compared whatever they are called. Of a side that is meant as a ``whole``,
    what the other does not have counts too, unless a single process of that was named.
    """
    from pagewalk.history.matching import Matched, Pair, is_same, match

    same_boot = one.moment.boot == other.moment.boot != ""
    if len(olds) == len(news) == 1:
        pair = Pair(olds[0], news[0], is_same(olds[0], news[0], same_boot))
        return Matched((pair,), (), ())
    found = match(olds, news, same_boot)
    if whole and all_new:
        return found
    if not found.pairs:
        name = (olds if not whole else news)[0].called
        raise BadTarget(f"no single process of {one.moment.what if whole else other.moment.what} is"
                        f" like '{in_a_line(name)}': name one as FILE:PID")
    return Matched(found.pairs, (), ())


def still_there(one: RecordedSide, olds: list[Member], now: LiveSide) -> Matched:
    """Return which of the recorded processes still run, and which have ended.

    Raises BadRequest if they cannot run here, ProcessGone if all of them have ended.
    """
    from pagewalk.history.matching import Matched, match
    from pagewalk.history.sides import live_members
    from pagewalk.proc.chosen import Wanted, choose

    if one.moment.boot != now.moment.boot or not now.moment.boot:
        raise BadRequest(f"{one.moment.what} was recorded on another machine, or before it was last"
                         " started: name the process to compare it with")
    try:
        news = live_members(choose(Wanted(pids=tuple(one.pid for one in olds))))
    except BadTarget:
        news = []
    found = match(olds, news, True)
    pairs = tuple(pair for pair in found.pairs if pair.same)
    if not pairs:
        raise ProcessGone(olds[0].pid, "has ended since it was recorded, and so have all others of"
                          " the recording" if len(olds) > 1 else "has ended since it was recorded")
    left = {one.pid for one in olds} - {pair.before.pid for pair in pairs}
    return Matched(pairs, tuple(one for one in olds if one.pid in left), ())
