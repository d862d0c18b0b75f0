"""The screen and the document of an armed recorder's recording: what happened, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.history.glance import Glance, Member, fullness, hard_to_reclaim
from pagewalk.history.trigger import Trigger, causes, explained
from pagewalk.history.waiting import REMOVED
from pagewalk.render.amounts import kib, many, size, when
from pagewalk.render.armed_words import what_happened
from pagewalk.render.document import missing, write
from pagewalk.render.group_words import COUNTED
from pagewalk.render.terminal import following, paint, printable, say, say_grid, say_missing, width
from pagewalk.system.group_counters import charged_from
from pagewalk.system.ram import PARTS

if TYPE_CHECKING:
    from pagewalk.history.armed_recording import ArmedRecording
    from pagewalk.proc.kmsg import Kill

LISTED = 10  # processes on the screen
# What counters tell of a cgroup, in the order of a screen.
TITLES = {part.name: part.title for part in PARTS} | COUNTED | {
    "anon": "anonymous memory", "anon_huge": "anonymous memory in huge pages",
    "file": "page cache of files", "shmem": "tmpfs and shared memory",
    "kernel_other": "the kernel's, not told apart",
}


def text(found: ArmedRecording, path: str, out: TextIO, **_: object) -> None:
    """Write why the recording at ``path`` was made, and what the group was made of before that."""
    trigger = found.trigger
    print(paint(out, "main", heading(trigger)), file=out)
    for sentence in (*answers(trigger), *shared(found), *earlier(trigger)):
        say(sentence, out)
    print(file=out)
    say_grid([("CHARGED", "WHAT"), *amounts(trigger)], {1}, out, room=width(out), yields=1)
    members = explained(trigger).members
    if members:
        print(file=out)
        rows = [row(trigger, one) for one in members[:LISTED]]
        head = ("PID", "ANON", "FILE", "SHMEM", "SWAP", "NAME", "OUTCOME")
        say_grid([head, *rows], {5, 6}, out, room=width(out), yields=5)
        more = explained(trigger).processes - len(rows)
        if more > 0:
            say(f"and {many(more, 'smaller process', 'es')}", out)
    if not found.recorded:
        why = ("the processes of the cgroup could not be recorded" if found.refused else
               "the cgroup had no process any more when they were recorded" if had(trigger) else
               "the cgroup had no process")
        say(f"No page of a process is in this recording: {why}.", out)
    say_missing(found.withheld, out)
    following(out, *hints(trigger, path, found.recorded))


def had(trigger: Trigger) -> bool:
    """Return whether the cgroup is known to have had a process."""
    return bool(trigger.kills or trigger.now.processes
                or (trigger.before is not None and trigger.before.processes))


def shared(found: ArmedRecording) -> Iterator[str]:
    """Yield which processes had most of a file in tmpfs or of shared memory."""
    for one in found.shared if causes(explained(found.trigger), found.trigger.version).get(
            "shmem") else ():
        yield (f"{printable(one.process)} ({one.pid}) had {size(one.rss)} of"
               f" {printable(one.name)} in its RSS: tmpfs or shared memory.")


def hints(trigger: Trigger, path: str, recorded: Collection[int]) -> Iterator[str]:
    """Yield what to look at next."""
    largest = [one.pid for one in explained(trigger).members if one.pid in recorded]
    if largest:
        yield f"show {path}:{largest[0]}"
    if trigger.path and REMOVED not in trigger.told:
        if next(iter(causes(explained(trigger), trigger.version)), "") == "shmem":
            yield f"explain --cgroup {trigger.path}"  # which files hold it
        yield f"share --cgroup {trigger.path}"


def heading(trigger: Trigger) -> str:
    named = f"cgroup {printable(trigger.path)}" if trigger.path else "a cgroup (its path: scrubbed)"
    return f"{named}: {what_happened(trigger)}, {when(trigger.now.at_ns)}"


def answers(trigger: Trigger) -> Iterator[str]:
    """Yield what happened, and what the charge was made of."""
    if trigger.of_kills:
        yield from who(trigger)
    found = explained(trigger)
    full = fullness(found.numbers, trigger.version)
    of = "" if full is None else f", of a limit of {size(full[1])}"
    at = "Then" if found is trigger.now else (
        f"{ago(trigger.now.at_ns - found.at_ns)} before this was noticed")
    if found.numbers.current is None:
        yield ("Nothing of what was charged could be read before the cgroup was removed."
               if REMOVED in trigger.told else
               "The kernel does not tell what the root is charged for in all; its parts are below.")
        return
    yield f"{at} {size(found.numbers.current)} were charged{of}{made_of(trigger, found)}."
    told = causes(found, trigger.version)
    if told:
        largest, held = next(iter(told.items()))
        # Counted late, it may be more than is charged.
        share = min(100, 100 * held // max(1, found.numbers.current))
        part = "Most of it" if share > 50 else "The largest part of it"
        yield f"{part} was {SUMMARY[largest]}: {share} %."


# What to say of the largest of causes().
SUMMARY = {
    "anon": "anonymous memory of its processes, which goes nowhere but to swap",
    "shmem": "tmpfs and shared memory, which goes nowhere but to swap, and stays when a process"
             " ends",
    "kernel": "memory of the kernel: page tables, sockets, objects",
    "file": "page cache, which is reclaimed first: no cause of a kill",
}


def ago(ns: int) -> str:
    """Return how long something was, in words."""
    seconds = ns / 1e9
    for name, unit in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{ns / 1e6:.0f} ms"


def made_of(trigger: Trigger, found: Glance) -> str:
    """Return of what, as the end of a sentence; empty if that was not read."""
    if found.numbers.stat is None:
        return ""
    held = causes(found, trigger.version)
    told = [f"{size(held.get(name, 0))} {word}" for name, word in (
        ("anon", "anonymous"), ("shmem", "tmpfs and shared"), ("file", "page cache"),
        ("kernel", "of the kernel"))]
    return f": {', '.join(told)}; {size(swap(found))} in swap"


def who(trigger: Trigger) -> Iterator[str]:
    """Yield which processes were killed, and because of what, the last first."""
    kills = trigger.kills or ()
    for kill in reversed(kills):
        before = kills[-1].log_ns - kill.log_ns
        first = f"{ago(before)} before that it killed" if before >= 10**9 else "The kernel killed"
        yield f"{first} {told_of(kill)}."
    count = trigger.events.get("oom_kill", 0)
    if count > len(kills):
        named = {kill.pid for kill in kills}
        left = [one for one in trigger.gone if one.pid not in named][:LISTED]
        names = ", ".join(f"{printable(one.name)} ({one.pid})" for one in left)
        gone = f"; gone since it was looked at before: {names}" if names else ""
        log = ("its log could not be read" if trigger.kills is None else
               f"its log names {len(named)} of them" if named else "its log names nobody")
        yield f"The kernel counted {many(count, 'kill')}, and {log}{gone}."


def told_of(kill: Kill) -> str:
    """Return who was killed, what it had, and because of what."""
    limited = "a cgroup" if kill.limit_cgroup is None else f"cgroup {printable(kill.limit_cgroup)}"
    cause = (f"{limited} could not keep its limit" if kill.of_limit else
             "the machine was out of memory")
    return (f"{printable(kill.name)} ({kill.pid}), with {size(kill.anon)} of anonymous memory,"
            f" {size(kill.file)} of files and {size(kill.shmem)} of shared memory in RAM: {cause}")


def earlier(trigger: Trigger) -> Iterator[str]:
    """Yield who was killed before a recording that was made for another reason."""
    for kill in () if trigger.of_kills else trigger.kills or ():
        yield f"Before this, the kernel killed {told_of(kill)}; no recording told of it yet."


def swap(found: Glance) -> int | None:
    """Return what the group has in swap, in bytes."""
    if found.numbers.swap_current is not None:
        return found.numbers.swap_current
    return None if found.numbers.stat is None else found.numbers.stat.get("total_swap", 0)


def amounts(trigger: Trigger) -> list[tuple[str, str]]:
    """Return a row for each kind of memory, the largest first, and the totals."""
    found = explained(trigger)
    parts = charged_from(found.numbers, trigger.version) or {}
    rows = [(kib(held), f"  {TITLES.get(name, name)}")
            for name, held in sorted(parts.items(), key=lambda pair: -pair[1])]
    rest = untold(found, trigger.version)
    return [*rows, *([(kib(rest), f"  {uncounted(found, trigger.version)}")] if rest else []),
            (kib(found.numbers.current), "charged"),
            (kib(without_cache(found, trigger.version)), "of it without page cache"),
            (kib(swap(found)), "in swap, beside that")]


# CPUs charge up to 64 pages in advance (MEMCG_CHARGE_BATCH), and what memory.stat counts is added
# up with a delay (memcg_vmstats_needs_flush, mm/memcontrol.c): it may also be more than is charged.
# Pages that are in swap too and mapped by nobody are in none of its counts (mm/swap_state.c).
UNCOUNTED = ("charged in advance", "counted late", "in swap too")


def uncounted(found: Glance, version: int) -> str:
    """Return what is charged beyond what memory.stat tells, in words."""
    stat = found.numbers.stat or {}
    # Up to 5.17 there is no sum of what is the kernel's; without kmem accounting it is not charged.
    kernel = version == 2 and "kernel" not in stat
    *others, last = (*(["the kernel's"] if kernel else []), *UNCOUNTED)
    return f"not in memory.stat: {', '.join(others)}, or {last}"


def untold(found: Glance, version: int) -> int | None:
    """Return what is charged beyond what memory.stat tells, in bytes; None where it is not read."""
    parts = charged_from(found.numbers, version)
    if parts is None or found.numbers.current is None:
        return None
    return found.numbers.current - sum(parts.values())


def without_cache(found: Glance, version: int) -> int | None:
    """Return what is charged without page cache, in bytes; None where that is not known."""
    return None if found.numbers.stat is None else hard_to_reclaim(found.numbers, version)


def row(trigger: Trigger, one: Member) -> tuple[str, ...]:
    killed = {kill.pid for kill in trigger.kills or ()}
    gone = {member.pid for member in trigger.gone}
    outcome = "killed" if one.pid in killed else "gone" if one.pid in gone else ""
    return (str(one.pid), kib(one.anon), kib(one.file), kib(one.shmem), kib(one.swap),
            printable(one.name), outcome)


def json(found: ArmedRecording, _path: str, out: TextIO, **_: object) -> None:
    """Write all of it."""
    trigger = found.trigger
    write({
        "cgroup": {"path": trigger.path, "version": trigger.version},
        "reason": trigger.reason, "told": list(trigger.told), "near": trigger.near,
        "late_ns": trigger.late_ns, "events": trigger.events,
        "killed": None if trigger.kills is None else [kill(one) for one in trigger.kills],
        "gone": [one.pid for one in trigger.gone],
        "recorded": list(found.recorded),
        "not_looked": [{"pid": one.pid, "why": str(one.error)} for one in found.refused],
        "shared_files": [one._asdict() for one in found.shared],
        "now": moment(trigger.now, trigger.version),
        "before": None if trigger.before is None else moment(trigger.before, trigger.version),
        **missing(found.withheld),
    }, out)


def kill(one: Kill) -> dict[str, Any]:
    return {"pid": one.pid, "name": one.name, "anon": one.anon, "file": one.file,
            "shmem": one.shmem, "cgroup": one.group, "of_limit": one.of_limit,
            "limit_cgroup": one.limit_cgroup, "log_ns": one.log_ns}


def moment(found: Glance, version: int) -> dict[str, Any]:
    """Return what was read of the group at one time."""
    numbers = found.numbers
    return {
        "time_ns": found.at_ns, "took_ns": found.took_ns, "charged": numbers.current,
        "limit": numbers.limit, "high": numbers.high, "swap": swap(found),
        "without_page_cache": without_cache(found, version),
        "kinds": charged_from(numbers, version), "untold": untold(found, version),
        "events": numbers.events, "pressure": numbers.pressure, "process_count": found.processes,
        "processes": [one._asdict() for one in found.members],
    }
