"""Memory cgroups as rows: their names, what is charged to them, and which of them were removed.

The memory controller keeps every group in an xarray by its id (cgroup_subsys.css_idr) until nothing
is charged to it any more (css_release_work_fn, kernel/cgroup/cgroup.c): so removed ones, which have
no directory, are still found. A group is believed if it belongs to that controller and its id is
where it was found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map, read_names
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.xarray import held
from pagewalk.model.columns import I64, U64, Bool, Rows, take
from pagewalk.model.errors import NotInBtf, SourceUnavailable

_NAME_MAX = 255  # include/uapi/linux/limits.h: the longest name of a directory
# include/linux/memcontrol.h, enum page_memcg_data_flags
WORD_FLAGS, OBJEXTS, KMEM = np.uint64(7), np.uint64(1), np.uint64(2)
# include/linux/page_counter.h: a limit of PAGE_COUNTER_MAX is none
_NO_LIMIT = np.uint64(np.iinfo(np.int64).max // PAGE)


class Memcgs(Rows):
    """The memory cgroups, parents before children.

    ``memcg`` u64 the address of its mem_cgroup; ``inode`` u64 of the cgroup's directory; ``parent``
    i64 the row of its parent, -1 for the root; ``dying`` bool: it takes no new charges, because it
    was removed or because the controller was disabled for it; ``removed`` bool: its cgroup has no
    directory any more. ``usage`` i64 bytes as in memory.current (memory.usage_in_bytes), and
    ``limit`` i64 bytes, -1 if there is none. ``minimum`` i64 bytes: memory.min, 0 on v1, which has
    none, and at most 2^62. ``swap`` i64 bytes only on v2 and ``kmem`` i64 bytes
    only on v1, else None. ``path`` from the root of the hierarchy, "/" for the root.

    When a group is removed, the kernel gives its kernel memory to its parent
    (memcg_reparent_objcgs, mm/memcontrol.c), but does not take it off ``usage``, nor ``kmem``: in
    those, a group that is ``dying`` still has what it had then.
    """

    memcg: U64
    inode: U64
    parent: I64
    dying: Bool
    removed: Bool
    usage: I64
    limit: I64
    minimum: I64
    swap: I64 | None
    kmem: I64 | None
    path: tuple[str, ...]


class Owners(NamedTuple):
    """The groups, and for each word that was asked about the row of the group that is charged.

    ``of_owner`` i64[n] is -1 where nobody is charged, where the word is a slab's vector of owners,
    and where the group has gone since the word was read.
    """

    groups: Memcgs
    of_owner: I64


def read_groups(kernel: Kernel, direct_map: DirectMap, owners: U64) -> Owners:
    """Return all groups, and which of them each of ``owners`` (u64[n]) names.

    ``owners`` are words memcg_data (Frames.owner). Raises what ``all_groups`` raises.
    """
    groups = all_groups(kernel)
    return Owners(groups, rows_of(kernel, direct_map, groups, owners))


def rows_of(kernel: Kernel, direct_map: DirectMap, groups: Memcgs, owners: U64) -> I64:
    """Return the row of ``groups`` that each of ``owners`` (u64[n]) names, -1 if none."""
    words, back = np.unique(owners, return_inverse=True)
    of_vector = words & OBJEXTS != 0
    indirect = ~of_vector & (words & KMEM != 0)
    place = words & ~WORD_FLAGS
    place[indirect] = _behind(kernel, direct_map, place[indirect])
    found = find_rows(groups, place)
    # Since Linux 7 pages of processes and files are charged through an obj_cgroup too.
    missed = (found < 0) & ~of_vector & ~indirect & (words != 0)
    found[missed] = find_rows(groups, _behind(kernel, direct_map, place[missed]))
    found[of_vector] = -1
    return found[back]


def rows_behind(kernel: Kernel, direct_map: DirectMap, groups: Memcgs, objcgs: U64) -> I64:
    """Return the row of ``groups`` that each obj_cgroup at ``objcgs`` (u64[n]) charges, or -1."""
    return find_rows(groups, _behind(kernel, direct_map, objcgs))


def find_rows(groups: Memcgs, memcgs: U64) -> I64:
    """Return the row of ``groups`` whose mem_cgroup is at each of ``memcgs`` (u64[n]), or -1."""
    return _at(groups.memcg, memcgs)


def _at(places: U64, wanted: U64) -> I64:
    # The row of each of `wanted` among `places`, -1 where it is none of them.
    order = np.argsort(places)
    at = order[np.minimum(np.searchsorted(places[order], wanted), len(order) - 1)]
    rows: I64 = np.where(places[at] == wanted, at, -1)
    return rows


def _behind(kernel: Kernel, direct_map: DirectMap, objcgs: U64) -> U64:
    # obj_cgroup.memcg, 0 where it cannot be read.
    memcgs, there = np.zeros(len(objcgs), np.uint64), in_direct_map(direct_map, objcgs)
    if there.any():
        memcgs[there] = gather(kernel, "obj_cgroup", objcgs[there], ("memcg",))[0]["memcg"]
    return memcgs


def all_groups(kernel: Kernel) -> Memcgs:
    """Return every memory cgroup of this kernel, removed ones too.

    Raises SourceUnavailable if the kernel has no memory cgroups, or its structs cannot be read.
    """
    try:
        return _all_groups(kernel)
    except NotInBtf as error:
        why = f"this kernel's BTF has no {error.missing}"
    except OSError as error:
        why = f"a memory cgroup could not be read: {error}"
    raise SourceUnavailable("memory cgroups", why, "use a kernel built with CONFIG_MEMCG")


# The groups as they were found, those nearer to the root first.
class _Found(Rows):
    css: U64
    above: U64
    state: U64
    cgroup_state: U64
    level: U64
    inode: U64
    name: U64


def _all_groups(kernel: Kernel) -> Memcgs:
    found, second = _found(kernel, _controller(kernel))
    parent, paths = _paths(found, read_names(kernel, found.name, _NAME_MAX + 1))
    # A group whose parent was not found came while we read.
    kept = np.array([path is not None for path in paths], bool)
    parent = np.where(parent < 0, -1, np.cumsum(kept)[parent] - 1)[kept]
    found = take(found, kept)
    memcg = found.css - np.uint64(kernel.btf.offset("mem_cgroup", "css"))
    amounts = _amounts(kernel, memcg)
    online, dying = (kernel.btf.enumerator(name) for name in ("CSS_ONLINE", "CSS_DYING"))
    limit = amounts["memory.max"]
    return Memcgs(
        memcg=memcg, inode=found.inode, parent=parent,
        dying=found.state & np.uint64(online | dying) != np.uint64(online),
        removed=found.cgroup_state & np.uint64(online) == 0,
        usage=_bytes(amounts["memory.usage.counter"]),
        minimum=_bytes(amounts["memory.min"]),
        limit=np.where(limit >= _NO_LIMIT, np.int64(-1), _bytes(limit)),
        swap=_bytes(amounts["swap.usage.counter"]) if second else None,
        kmem=None if second or _KMEM not in amounts else _bytes(amounts[_KMEM]),
        path=tuple(path or "/" for path in paths if path is not None),
    )  # fmt: skip


def _found(kernel: Kernel, controller: int) -> tuple[_Found, bool]:
    # The groups of the controller, and whether its hierarchy is v2.
    idr = controller + kernel.btf.offset("cgroup_subsys", "css_idr")
    place, number = _by_id(kernel, idr)
    members = ("ss", "id", "cgroup", "flags", "parent")
    css, ok = gather(kernel, "cgroup_subsys_state", place, members)
    ok &= (css["ss"] == np.uint64(controller)) & (css["id"] == number)
    cgroup, there = gather(
        kernel, "cgroup", css["cgroup"][ok], ("self.flags", "kn", "level", "root")
    )
    node, named = gather(kernel, "kernfs_node", cgroup["kn"], ("id", "name"))
    found = _Found(
        place[ok], css["parent"][ok], css["flags"][ok], cgroup["self.flags"], cgroup["level"],
        node["id"], node["name"],
    )  # fmt: skip
    found = take(found, there & named)
    if not len(found):
        raise OSError(0, "no group belongs to the controller")
    root = int(cgroup["root"][there & named][0])
    # Only the hierarchy that was made first, v2's, has number 0 (cgroup_init).
    second = kernel.field("cgroup_root", root, "hierarchy_id") == 0
    return take(found, np.argsort(found.level, kind="stable")), second


def _paths(found: _Found, names: list[str | None]) -> tuple[I64, list[str | None]]:
    # The row of each group's parent, and its path, "" for the root; None if that leads nowhere.
    above = _at(found.css, found.above)
    paths: list[str | None] = []
    for name, row in zip(names, above.tolist(), strict=True):
        over = paths[row] if 0 <= row < len(paths) else None
        here = None if over is None or name is None else f"{over}/{name}"
        paths.append(here if paths else "")
    return above, paths


_KMEM = "kmem.usage.counter"


def _amounts(kernel: Kernel, memcg: U64) -> dict[str, U64]:
    paths = ["memory.usage.counter", "memory.max", "memory.min", "swap.usage.counter"]
    if kernel.btf.has("mem_cgroup", _KMEM):
        paths.append(_KMEM)
    amounts, ok = gather(kernel, "mem_cgroup", memcg, paths)
    if not ok.all():
        raise OSError(0, "what is charged to it could not be read")
    return amounts


def _bytes(pages: U64) -> I64:
    # A counter that fell below 0 is shown as 0 (page_counter_read); a limit has no more bits.
    counted: I64 = np.clip(pages.view(np.int64), 0, (1 << 62) // PAGE) * PAGE
    return counted


def _controller(kernel: Kernel) -> int:
    # The cgroup_subsys of the memory controller, through our own group.
    btf = kernel.btf
    number = btf.enumerators("cgroup_subsys_id")["memory_cgrp_id"]
    cgroups = kernel.field("task_struct", kernel.current, "cgroups")
    at = cgroups + btf.offset("css_set", "subsys") + 8 * number
    css = int.from_bytes(kernel.memory.read(at, 8), "little")
    return kernel.field("cgroup_subsys_state", css, "ss")


def _by_id(kernel: Kernel, idr: int) -> tuple[U64, U64]:
    # What an idr holds, and the ids.
    head = kernel.fields("idr", idr, ("idr_rt.xa_head", "idr_base"))
    entries, index = held(kernel, head["idr_rt.xa_head"])
    return entries, index + np.uint64(head["idr_base"])
