"""What groups are charged for and do not use yet: leftovers of obj_cgroups, and stocks of CPUs.

Kernel objects are charged to an obj_cgroup, in whole pages. What is left of a page waits on a CPU
for its next object, and in obj_cgroup.nr_charged_bytes once that CPU charges another obj_cgroup
(refill_obj_stock, drain_obj_stock, mm/memcontrol.c). A group that is removed gives its obj_cgroup
to its parent, where it keeps its leftover for as long as one of its objects lives
(memcg_reparent_objcgs). A CPU also has pages in stock that are charged to a group and not used yet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_structs, read_words
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import Memcgs, find_rows
from pagewalk.model.columns import I64, U64, Bool, Rows, join, take
from pagewalk.model.errors import NotInBtf

_ROUNDS = 1 << 12  # at most, from one neighbour in a list to the next: see _spread
_DEEPEST = 64  # groups of the scheduler, one below the other
# Where a CPU keeps what is charged for objects: the variable, its struct, and where in it (since
# 6.17, up to 6.16, and two of them from 5.14 to 5.17).
_OBJECT_STOCKS = (("obj_stock", "obj_stock_pcp", ""), ("memcg_stock", "memcg_stock_pcp", ""),
                  ("memcg_stock", "memcg_stock_pcp", "task_obj."),
                  ("memcg_stock", "memcg_stock_pcp", "irq_obj."))  # fmt: skip


class Objcgs(Rows):
    """Obj_cgroups: the row of the group that each charges (i64), and bytes left of a page (i64)."""

    objcg: U64
    group: I64
    left: I64


class Stocks(NamedTuple):
    """What is charged and not used yet, i64 bytes by the row of the group.

    ``left`` is in obj_cgroups, of which a group has ``objcgs``: all of them if ``listed``, else
    those that were known. ``objects`` waits on CPUs for objects and ``pages`` for pages, both None
    if the CPUs' areas cannot be found.
    """

    left: I64
    objcgs: I64
    listed: bool
    objects: I64 | None
    pages: I64 | None


def read_stocks(kernel: Kernel, direct_map: DirectMap, groups: Memcgs, known: U64) -> Stocks:
    """Return what ``groups`` are charged for and do not use yet.

    ``known`` (u64) are obj_cgroups that are known, such as those of objects: the lists of groups
    are followed from there too. What changes meanwhile may be missing. Raises NotInBtf if the
    kernel has no obj_cgroups.
    """
    listed = kernel.btf.has("mem_cgroup", "objcg_list") and kernel.btf.has("mem_cgroup", "objcg")
    found, whole = all_objcgs(kernel, direct_map, groups, known, listed=listed)
    places = _areas(kernel)
    objects = pages = None
    if places is not None:
        objects = _objects_in_stock(kernel, places, found, len(groups))
        pages = _pages_in_stock(kernel, places, groups)
    left = _by_group(found.group, found.left, len(groups))
    many = np.bincount(found.group, minlength=len(groups)).astype(np.int64)
    return Stocks(left, many, listed and whole, objects, pages)


def all_objcgs(
    kernel: Kernel, direct_map: DirectMap, groups: Memcgs, known: U64, *, listed: bool
) -> tuple[Objcgs, bool]:
    """Return the obj_cgroups that are ``known``, and if ``listed`` those of ``groups`` too.

    And whether the lists were followed to their ends.
    """
    heads, own = known[:0], known
    if listed:
        cells, _ = gather(kernel, "mem_cgroup", groups.memcg, ("objcg", *_links("objcg_list")))
        # A head of a list, as if it were in an obj_cgroup like the others.
        link = np.uint64(kernel.btf.offset("obj_cgroup", "list"))
        head = np.uint64(kernel.btf.offset("mem_cgroup", "objcg_list"))
        heads = groups.memcg + head - link
        own = np.concatenate((known, cells["objcg"], *(cells[name] - link
                                                       for name in _links("objcg_list"))))
    found, whole = _spread(kernel, direct_map, own, heads)
    group = find_rows(groups, found.memcg)
    kept = (group >= 0) & _linked(kernel, groups, found, heads, listed)
    return Objcgs(found.objcg[kept], group[kept], found.left[kept]), whole


def _links(path: str) -> tuple[str, str]:
    return f"{path}.next", f"{path}.prev"


class _Found(Rows):
    # As they were read; `after` and `before` are the neighbours in the list.
    objcg: U64
    memcg: U64
    left: I64
    after: U64
    before: U64


def _spread(
    kernel: Kernel, direct_map: DirectMap, own: U64, heads: U64
) -> tuple[_Found, bool]:
    # What is at `own`, and at their neighbours, and theirs; and whether that is all. Nearly all are
    # known from their objects, so that few rounds are needed; lists are followed both ways.
    link = np.uint64(kernel.btf.offset("obj_cgroup", "list"))
    parts: list[_Found] = []
    seen, wanted = heads, own
    for _ in range(_ROUNDS):
        wanted = np.setdiff1d(wanted, seen)
        wanted = wanted[in_direct_map(direct_map, wanted)]
        if not len(wanted) and parts:
            return join(parts), True
        cells, ok = gather(kernel, "obj_cgroup", wanted,
                           ("memcg", "nr_charged_bytes", *_links("list")))
        after, before = (cells[name] - link for name in _links("list"))
        left = cells["nr_charged_bytes"].astype(np.int64)
        seen = np.concatenate((seen, wanted))
        parts.append(take(_Found(wanted, cells["memcg"], left, after, before), ok))
        wanted = np.concatenate((parts[-1].after, parts[-1].before))
    return join(parts), False


def _linked(
    kernel: Kernel, groups: Memcgs, found: _Found, heads: U64, listed: bool
) -> Bool:
    # Which are still in a list, or in none: of those that were freed, nothing points back.
    alone = found.after == found.objcg
    if not listed:
        return np.ones(len(found), bool)
    cells, _ = gather(kernel, "mem_cgroup", groups.memcg, ("objcg_list.prev",))
    link = np.uint64(kernel.btf.offset("obj_cgroup", "list"))
    places = np.concatenate((heads, found.objcg))
    back = np.concatenate((cells["objcg_list.prev"] - link, found.before))
    order = np.argsort(places)
    at = order[np.minimum(np.searchsorted(places[order], found.after), len(order) - 1)]
    linked: Bool = alone | ((places[at] == found.after) & (back[at] == found.objcg))
    return linked


def _by_group(group: I64, amount: I64, count: int) -> I64:
    return np.bincount(group, amount, count).astype(np.int64)


# ---- the stocks of CPUs


def _areas(kernel: Kernel) -> U64 | None:
    # Where the per-CPU variables of each CPU begin; None if that cannot be told. The runqueue of
    # each is one of them, and the topmost group of the scheduler leads to all.
    try:
        group = kernel.field("task_struct", kernel.current, "sched_task_group")
        for _ in range(_DEEPEST):
            above = kernel.field("task_group", group, "parent")
            if not above:
                break
            group = above
        queues = kernel.field("task_group", group, "cfs_rq")
        first = np.uint64(kernel.btf.percpu("runqueues"))
        return _queues(kernel, queues) - first
    except (NotInBtf, OSError):
        return None


def _queues(kernel: Kernel, array: int) -> U64:
    # struct rq of each CPU, through the array of their cfs_rq; raises OSError if one says that it
    # is another's.
    cpus = np.arange(_cpus(), dtype=np.uint64)
    places, errno = read_words(kernel.memory, np.uint64(array) + 8 * cpus)
    cells, ok = gather(kernel, "cfs_rq", places, ("rq",))
    number, there = gather(kernel, "rq", cells["rq"], ("cpu",))
    if errno.any() or not ok.all() or not there.all() or (number["cpu"] != cpus).any():
        raise OSError(0, "the runqueues are not where they should be")
    return cells["rq"]


def _cpus() -> int:
    # With fewer than there are a stock would be missed, and what is left would be called exact.
    from pagewalk.proc.kernel import possible_cpus

    found = possible_cpus()
    if found is None:
        raise OSError(0, "it is not told how many CPUs there can be")
    return found


def _objects_in_stock(kernel: Kernel, places: U64, objcgs: Objcgs, count: int) -> I64 | None:
    sums, told = np.zeros(count, np.int64), False
    order = np.argsort(objcgs.objcg)
    for variable, struct, inside in _OBJECT_STOCKS:
        if not kernel.btf.has(struct, f"{inside}cached_objcg"):
            continue
        at = places + np.uint64(kernel.btf.percpu(variable))
        cells, ok = gather(kernel, struct, at, (f"{inside}cached_objcg", f"{inside}nr_bytes"))
        cached, held = cells[f"{inside}cached_objcg"], cells[f"{inside}nr_bytes"]
        row = np.searchsorted(objcgs.objcg[order], cached)
        row = order[np.minimum(row, len(order) - 1)] if len(order) else row
        mine = ok & (objcgs.objcg[row] == cached) if len(order) else ok & False
        sums += _by_group(objcgs.group[row[mine]], held[mine].astype(np.int64), count)
        told = bool(ok.all())
    return sums if told else None


def _pages_in_stock(kernel: Kernel, places: U64, groups: Memcgs) -> I64 | None:
    # Of one group or, since 6.16, of each of several.
    try:
        cached, many = (kernel.btf.member("memcg_stock_pcp", name)
                        for name in ("cached", "nr_pages"))
        at = places + np.uint64(kernel.btf.percpu("memcg_stock"))
    except NotInBtf:
        return None
    size = max(cached.offset + cached.size, many.offset + many.size)
    rows, errno = read_structs(kernel.memory, at, size)
    if errno.any():
        return None
    memcgs, pages = (
        np.ascontiguousarray(rows[:, one.offset : one.offset + one.size]).view(
            f"<u{one.size // one.elements}").reshape(-1) for one in (cached, many))
    group = find_rows(groups, memcgs)
    known = group >= 0
    return _by_group(group[known], pages[known].astype(np.int64) * PAGE, len(groups))
