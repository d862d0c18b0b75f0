"""A cgroup in words: what it is charged for, line by line, and the sentences above that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pagewalk.proc.cgroup_numbers import UNLIMITED
from pagewalk.proc.cgroups import SOCKETS
from pagewalk.render.amounts import many, size, times
from pagewalk.render.file_table import is_shared_anonymous, keeper, name_of, where
from pagewalk.render.ram_words import kept_back
from pagewalk.render.terminal import printable
from pagewalk.system.files import CachedFile, Sort
from pagewalk.system.group_counters import of_files
from pagewalk.system.group_ledger import KERNELS, NOT_USED
from pagewalk.system.group_uncompared import not_compared
from pagewalk.system.mapped import ANON, FILE, SHMEM
from pagewalk.system.mapped import KERNEL as MAPPED_KERNEL

if TYPE_CHECKING:
    from pagewalk.account.ledger import Cause
    from pagewalk.proc.cgroup_numbers import GroupNumbers
    from pagewalk.system.containers import Name
    from pagewalk.system.group import Group

# From these shares of the charge on something is worth a sentence: docs/commands/explain.md.
TWENTIETH, TENTH, HALF = 20, 10, 2
LISTED = 8  # lines of memory.stat, by name
NAMED = 3  # files, caches or processes of a row
USERS = {
    ANON: ("anon", "anon_huge", "ksm", "swap_cache", "hugetlb_used", "hugetlb_idle"),
    FILE: ("file_mapped", "file_unmapped", "file"),
    SHMEM: ("shmem_mapped", "shmem_unmapped", "shmem"),
}
TITLES = {ANON: "anonymous memory", FILE: "files in cache", SHMEM: "shared memory"}
KERNEL = {
    "page_tables": "page tables", "large_kmalloc": "large kmalloc", "zsmalloc": "zsmalloc",
    "kernel_other": "stacks, pipes and other pages", "kernel_stack": "kernel stacks",
    "slab_reclaimable": "kernel objects that can shrink", "vmalloc": "vmalloc",
    "slab_unreclaimable": "kernel objects that cannot shrink",
}  # fmt: skip
COUNTED = {"percpu": "per-CPU memory", "sock": "socket buffers", "zswap": "zswap"}


class Row(NamedTuple):
    """One line: what is ``charged``, what of it its processes map (None: nothing could), what it
    is, how deep below another row, and what of it could be reclaimed at once (None: not told)."""

    charged: int
    mapped: int | None
    what: str
    depth: int = 0
    reclaim: int | None = None


def now(group: Group) -> GroupNumbers:
    """Return the kernel's last numbers for the group."""
    return group.numbers[-1]


def amount(group: Group, kind: str) -> int:
    """Return the bytes of pages of ``kind`` (see mapped.KINDS) that are charged."""
    return sum(group.parts.get(name, 0) for name in USERS[kind])


def rows(group: Group) -> Iterator[Row]:
    """Yield what the charge is made of; rows of depth 0 add up to it, to what is unexplained."""
    for kind, title in TITLES.items():
        charged = amount(group, kind)
        if charged:
            mapped = None if group.mapped is None else group.mapped[kind]
            yield Row(charged, mapped, title, 0, at_once(group, kind))
            yield from owners(group) if kind == ANON else largest(group, kind)
    yield from kernels(group)
    stat = now(group).stat or {}
    if group.version == 2:
        yield from (Row(stat[name], None, COUNTED[name]) for name in KERNELS if stat.get(name))
    yield from (Row(held, None, title) for held, title in left(group).values() if held)


# What is left of the charge, by the cause in the ledger: the first two are not used yet.
LEFT = {
    "charged_in_advance": "charged in advance, for pages",
    "object_stock": "charged in advance, for kernel objects",
    "second_pages": "second pages of page-table roots",
    "percpu_not_told": "per-CPU memory, of groups below for example",
    "frames_changed": "allocated or freed while RAM was read",
    "concurrent_change": "charged or given back while RAM was read",
}


def left(group: Group) -> dict[str, tuple[int, str]]:
    """Return what of the charge was not found, by the cause in the ledger: bytes, and why."""
    first, current = next(iter(group.lines), None), now(group).current
    if group.charge is None and current is not None:
        apart = [name for name in KERNELS if group.version == 2]
        rest = (current - sum(group.parts.values())
                - sum((now(group).stat or {}).get(name, 0) for name in apart))
        return {"stat_lag": (rest, "not in memory.stat: charged in advance, or as yet not added"
                                   " up")}
    causes = () if first is None else first.causes
    return {one.cause: (-one.bytes, LEFT[one.cause] + bounded(one))
            for one in causes if one.cause in LEFT}


def bounded(cause: Cause) -> str:
    """Return the most that what is charged and not used yet can be, if it was not found exactly."""
    if cause.exact or cause.bound is None or cause.cause not in NOT_USED:
        return ""
    return f" (at most {size(cause.bound)})"


def at_once(group: Group, kind: str) -> int | None:
    """Return the bytes of pages of ``kind`` that could be reclaimed at once."""
    free = group.headroom
    if free is None:
        return None
    return {ANON: free.lazyfree, FILE: free.clean_mapped + free.clean_unmapped, SHMEM: 0}[kind]


def in_advance(group: Group) -> int:
    """Return what is charged and not used yet."""
    return sum(left(group)[name][0] for name in ("charged_in_advance", "object_stock")
               if name in left(group))


def not_told(group: Group) -> int:
    """Return the per-CPU memory that version 1 charges and tells nowhere, bytes; bounded."""
    return left(group).get("percpu_not_told", (0, ""))[0]


def second_pages(group: Group) -> int:
    """Return the second pages of page-table roots, which do not say who is charged; bounded."""
    return left(group).get("second_pages", (0, ""))[0]


def changed(group: Group) -> int:
    """Return how much less was found because it changed while RAM was read, bytes; bounded."""
    return sum(left(group)[name][0] for name in ("frames_changed", "concurrent_change")
               if name in left(group))


def owners(group: Group) -> Iterator[Row]:
    page = 0 if group.charge is None else group.charge.page
    found = [(one.charged[ANON] * page, one) for one in group.processes if one.charged[ANON]]
    found.sort(key=lambda pair: -pair[0])
    for held, one in found[:NAMED]:
        inside = f" ({one.inside[-1]} inside)" if one.inside else ""
        yield Row(held, held, f"{one.pid}{inside} {printable(one.name)}", 1)
    if len(found) > NAMED:
        yield Row(sum(held for held, _ in found[NAMED:]), None,
                  f"{len(found) - NAMED} other processes (what they share counts in each)", 1)


def files_of(group: Group, kind: str) -> list[CachedFile]:
    # The files of a kind, the largest first. A deleted one of a tmpfs is shared memory.
    shared = (Sort.TMPFS, Sort.UNNAMED)
    found = [one for one in (() if group.files is None else group.files.files)
             if (one.sort in shared or one.file_system in ("tmpfs", "devtmpfs", "hugetlbfs"))
             == (kind == SHMEM)]
    return sorted(found, key=lambda one: -one.amounts.cached)


def largest(group: Group, kind: str) -> Iterator[Row]:
    found = files_of(group, kind)
    for one in found[:NAMED]:
        yield Row(one.amounts.cached, None, file_name(one), 1)
    rest = amount(group, kind) - sum(one.amounts.cached for one in found[:NAMED])
    if rest > 0 and found[:NAMED]:
        yield Row(rest, None, "other files", 1)


def file_name(file: CachedFile) -> str:
    """Return what a file is called, where that name holds, if it was deleted, and who keeps it."""
    special = {Sort.DELETED: " (deleted)", Sort.UNNAMED: " (never had a path)"}
    if is_shared_anonymous(file):
        return f"shared anonymous memory{kept_by(file)}"
    elsewhere = file.place is not None and file.place.pid is not None
    seen = f", {where(file)}" if elsewhere else ""
    return f"{printable(name_of(file))}{special.get(file.sort, '')}{seen}{kept_by(file)}"


def kept_by(file: CachedFile) -> str:
    """Return which processes have a file open or mapped, in a few words."""
    if not file.kept_by:
        return ""
    first, *others = file.kept_by
    how = "open in" if first.opened else "mapped by"
    more = f" and {len(others)} more" if others else ""
    return f", {how} {printable(keeper(first))}{more}"


def kernels(group: Group) -> Iterator[Row]:
    titles = KERNEL
    if group.charge is None:
        titles = KERNEL | {"kernel_other": "not told apart"}
    elif "kernel_stack" in group.charge.areas:
        titles = KERNEL | {"kernel_other": "pipes and other pages"}
    named = [(group.parts[name], title) for name, title in titles.items() if group.parts.get(name)]
    named += [(one.bytes, f"{printable(one.cache)}, {many(one.objects, 'object')}")
              for one in group.objects]
    # whatever else is charged by the page
    known = {name for names in USERS.values() for name in names} | set(KERNEL)
    rest = sum(held for name, held in group.parts.items() if name not in known)
    named += [(rest, "other pages")] if rest else []
    if not named:
        return
    mapped = None if group.mapped is None else group.mapped[MAPPED_KERNEL]
    yield Row(sum(held for held, _ in named), mapped, "kernel memory", 0,
              None if group.headroom is None else group.headroom.slab_reclaimable)
    named.sort(key=lambda pair: -pair[0])
    for held, title in named[: NAMED + 1]:
        yield Row(held, None, title, 1)
    if len(named) > NAMED + 1:
        yield Row(sum(held for held, _ in named[NAMED + 1 :]), None,
                  f"{len(named) - NAMED - 1} others", 1)


# ---- sentences


def called(name: Name) -> str:
    """Return what a group is and what people call it: ``container web in pod shop/cart``."""
    kind = f"{name.kind} " if name.kind else "cgroup "
    if name.kind == "pod":
        inside = f" in namespace {name.namespace}" if name.namespace else ""
    elif name.pod:
        inside = f" in pod {'/'.join(filter(None, (name.namespace, name.pod)))}"
    else:
        inside = ""
    return printable(f"{kind}{name.name}{inside}")


def answers(group: Group) -> Iterator[str]:
    """Yield at most three sentences: who holds it, what is odd, what could be reclaimed."""
    if group.charge is None:
        yield from counted(group)
        return
    yield held(group)
    yield from odd(group)
    yield room(group)


def counted(group: Group) -> Iterator[str]:
    """Yield what can be said from counters alone."""
    made = [f"{size(row.charged)} {row.what}" for row in rows(group) if not row.depth]
    told = f": {', '.join(made)}" if made else ", and nothing tells for what"
    yield f"{size(total(group))} are charged to it{told}."
    files = of_files(now(group), group.version)
    if files is not None:
        yield f"At most {size(files)} of files could be reclaimed at once, if none are locked."


def held(group: Group) -> str:
    """Return a sentence about what its processes map, and what none of them does."""
    charge, looked = total(group), len(group.processes)
    many = looked + len(group.not_looked)
    swap = in_swap(group) or 0
    more = f" {size(swap)} more are in swap." if swap * TWENTIETH >= max(charge, 1) else ""
    if not many:
        return f"No process is in it, and {size(charge)} are charged to it.{more}"
    if group.mapped is None:
        whose = "Its only process" if many == 1 else f"None of its {many} processes"
        could = "could not" if many == 1 else "could"
        return f"{whose} {could} be looked at; {size(charge)} are charged to it.{more}"
    whose = "Its only process maps" if many == 1 else f"Its {many} processes map"
    if looked < many:
        whose = f"Of its {many} processes {looked} could be looked at: mapped there are"
    mapped = sum(group.mapped.values())
    return f"{whose} {size(mapped)} of the {size(charge)} that are charged to it.{more}"


def in_swap(group: Group) -> int | None:
    """Return what of the group is in swap, bytes; None if the kernel does not tell."""
    told = now(group)
    if group.version == 2:
        return told.swap_current
    if told.both is None or told.current is None:
        return None
    return max(0, told.both - told.current)  # version 1 counts memory and swap together


def so_far(group: Group) -> Iterator[str]:
    """Yield what the kernel kept of the past: the most that was charged, kills, time lost."""
    told, events = now(group), now(group).events or {}
    if told.peak is not None:
        yield f"the most that was charged to it at any time: {size(told.peak)}"
    kept = {"guaranteed": told.min, "protected": told.low, "slowed down above": told.high}
    named = [f"{title} {'all of it' if held == UNLIMITED else size(held)}"
             for title, held in kept.items() if held]
    if named:
        yield f"memory.min, low and high: {', '.join(named)}"
    reached = events.get("max" if group.version == 2 else "failcnt", 0)
    if reached or events.get("oom_kill"):
        below = " or of one below it" if group.version == 2 else ""
        yield (f"the limit of it{below} was reached {times(reached)};"
               f" {many(events.get('oom_kill', 0), 'process', 'es')} killed for lack of memory")
    lost = told.pressure or {}
    if lost.get("some"):
        yield (f"waited for memory: some of its threads for {lost['some'] / 1e6:.3f} s, all of"
               f" them at once for {lost.get('full', 0) / 1e6:.3f} s")


def sockets(group: Group) -> int | None:
    """Return what buffers of sockets take, bytes; None if the kernel does not tell.

    In version 1 that is not part of the charge, and TCP's alone. It is only counted once the group
    was given a limit of it (memcg_update_tcp_max, mm/memcontrol-v1.c): 0 may mean that.
    """
    if group.version == 1:
        return now(group).tcp or None
    off = any(row.what == SOCKETS for row in group.withheld)
    return None if off else (now(group).stat or {}).get("sock")


def total(group: Group) -> int:
    """Return what the kernel says is charged; of the root, which has no such number, our sum."""
    current = now(group).current
    if current is not None:
        return current
    return sum(row.charged for row in rows(group) if not row.depth)


def odd(group: Group) -> Iterator[str]:
    """Yield a sentence about what of the charge no process of it maps, if it is large."""
    charge = total(group)
    # Processes that could not be looked at may map any of it.
    cache, shared = (0 if group.mapped is None or group.not_looked
                     else amount(group, kind) - group.mapped[kind] for kind in (FILE, SHMEM))
    kernel = sum(row.charged for row in kernels(group) if not row.depth)
    count, _, left = group.dying or (0, 0, 0)
    elsewhere = sum(group.elsewhere.values())
    found: list[tuple[int, int, Callable[[], str]]] = [
        (cache, TWENTIETH, lambda: f"{size(cache)} are page cache of files that no process of"
         f" it maps{one_of(group, FILE, cache)}."),
        (shared, TWENTIETH, lambda: f"{size(shared)} are shared memory that no process of it"
         f" maps{one_of(group, SHMEM, shared)}; it stays until {lasts(group, shared)}."),
        (kernel, TENTH, lambda: f"{size(kernel)} are kernel memory: {most(group)}."),
        (left, TWENTIETH, lambda: f"{size(left)} are charged to {many(count, 'removed group')}"
         f" below it that still {'lives' if count == 1 else 'live'} on (pagewalk cgroups"
         " --dying)."),
    ]
    large = [(held, say) for held, share, say in found if charge and held * share >= charge]
    if large:
        yield max(large, key=lambda pair: pair[0])[1]()
    elif elsewhere and elsewhere >= charge:
        yield (f"Its processes map {size(elsewhere)} that others are charged for:"
               f" {foreign(group)}.")


def one_of(group: Group, kind: str, whole: int) -> str:
    # The file that makes up half of the amount, if one does.
    file = half_of(group, kind, whole)
    if file is None:
        return ""
    mapped = ", mapped by others" if file.amounts.mapped and others_map(group, kind) else ""
    return f", {size(apart(group, kind, file))} of it one file, {file_name(file)}{mapped}"


def half_of(group: Group, kind: str, whole: int) -> CachedFile | None:
    # Of what no process of it maps, the file that has most, if that is half.
    file = max(files_of(group, kind), key=lambda one: apart(group, kind, one), default=None)
    return None if file is None or apart(group, kind, file) * HALF < whole else file


def others_map(group: Group, kind: str) -> bool:
    # Who maps which pages of a file is not known by file: if ours map none at all, others do.
    return not (group.mapped or {}).get(kind)


def apart(group: Group, kind: str, file: CachedFile) -> int:
    return file.amounts.cached if others_map(group, kind) else file.amounts.unmapped


def lasts(group: Group, shared: int) -> str:
    file = half_of(group, SHMEM, shared)
    return "closed" if file is not None and file.sort is Sort.DELETED else "deleted and closed"


def foreign(group: Group) -> str:
    # The largest mappings of what others are charged for.
    ordered = sorted(group.elsewhere.items(), key=lambda pair: -pair[1])
    named = [f"{printable(name) or 'anonymous memory'} {size(held)}"
             for name, held in ordered[:NAMED]]
    rest = len(ordered) - NAMED
    return ", ".join([*named, many(rest, "other")] if rest > 0 else named)


def most(group: Group) -> str:
    named = [f"{row.what} {size(row.charged)}" for row in kernels(group) if row.depth]
    return ", ".join(named[:NAMED])


def room(group: Group) -> str:
    """Return a sentence about what could be reclaimed before a kill, and what could not."""
    free = group.headroom
    assert free is not None
    swap = min(free.swappable, group.swap_room or 0)
    later = [f"{size(free.dirty)} after writing them"] if free.dirty else []
    later += [f"{size(swap)} by swapping"] if swap else []
    more = f", {' and '.join(later)}" if later else ""
    stuck = free.swappable - swap + free.locked + free.hugetlb + free.kernel + free.held
    # an object that is in use keeps its slab
    most = "at most " if free.slab_reclaimable else ""
    no_swap = " (there is no room in swap)" if free.swappable and group.swap_room == 0 else ""
    text = (f"{most}{size(free.at_once)} could be reclaimed at once before a process is killed"
            f"{more}{kept_back(group.protected)}; {size(stuck)} could not{no_swap}.")
    return text[0].upper() + text[1:]


def working_set(group: Group) -> tuple[int, int] | None:
    """Return the working set as Kubernetes has it, and what it leaves out; None if not told.

    That is the charge less the inactive pages of files (cadvisor, container.Stats).
    """
    stat, current = now(group).stat or {}, now(group).current
    inactive = stat.get("inactive_file" if group.version == 2 else "total_inactive_file")
    if current is None or inactive is None:
        return None
    return max(current - inactive, 0), min(inactive, current)


def uncompared(group: Group) -> Iterator[str]:
    """Yield which lines of memory.stat the ledger is not about, and why: by reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in not_compared(now(group), group.version).items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        listed = ", ".join(map(printable, names)) if len(names) <= LISTED else many(
            len(names), "line")
        yield f"not compared of memory.stat: {listed}: {why}"
