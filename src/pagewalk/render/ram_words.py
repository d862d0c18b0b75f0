"""All of RAM in words: the table of what it is used for, and the sentences above it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pagewalk.render.amounts import kib, size
from pagewalk.render.file_table import deleted_words
from pagewalk.render.terminal import bars
from pagewalk.system.ram import GROUPS, PARTS, Part

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.system.headroom import Headroom
    from pagewalk.system.look import Ram

# A part of RAM is odd from this share on (docs/commands/ram.md, "What stands out").
ODD_SHARE = 20  # a twentieth
BY_NAME = {part.name: part for part in PARTS}
# Parts that are odd if they are large, most telling first: what to say of each.
ODD = {
    "hugetlb_idle": "{} are hugetlb pages that were set aside and that nobody uses:"
    " /proc/sys/vm/nr_hugepages gives them back",
    "shmem_unmapped": "{} are shared memory that no process maps: files on a tmpfs, memfds, SysV"
    " segments (pagewalk ram --files names them)",
    "slab_unreclaimable": "{} are kernel objects that cannot be reclaimed"
    " (pagewalk ram --slab names them)",
    "page_tables": "{} are page tables: processes map far more than they use",
    "zsmalloc": "{} hold what was swapped out, compressed (zram or zswap)",
    "balloon": "{} were taken back by the hypervisor's balloon, or are offline",
    "kernel_other": "{} belong to the kernel and nothing tells what they are for",
}


DELETED = "deleted"  # which is no part: it is in files in cache, or in shared memory


def answers(ram: Ram) -> Iterator[str]:
    """Yield at most three sentences: what RAM is used for, what is odd, what could be reclaimed."""
    if ram.parts is None or ram.total is None:
        return
    groups = by_group(ram.parts)
    hugetlb = sum(ram.parts.get(name, 0) for name in ("hugetlb", "hugetlb_used", "hugetlb_idle"))
    pages = f", {size(hugetlb)} are hugetlb pages" if hugetlb else ""
    yield (f"Processes hold {size(groups['processes'] - hugetlb)} of anonymous memory{pages}, files"
           " in cache are"
           f" {size(groups['cache'])}, shared memory is {size(groups['shared'])}, the kernel has"
           f" {size(groups['kernel'])}; {size(groups['free'])} are free.")
    yield from odd(ram)
    yield from could_be_reclaimed(ram)


def by_group(parts: dict[str, int]) -> dict[str, int]:
    """Return the bytes of each of GROUPS."""
    found = dict.fromkeys(GROUPS, 0)
    for name, amount in parts.items():
        found[BY_NAME[name].group] += amount
    return found


def odd(ram: Ram) -> Iterator[str]:
    """Yield a sentence about the largest part that is odd, if one is.

    What deleted files have of shared memory counts as theirs.
    """
    parts, total = ram.parts or {}, ram.total or 0
    deleted, theirs = (0, 0) if ram.deleted is None else (
        ram.deleted.amounts.cached, ram.deleted.shared)
    amounts = {DELETED: deleted, **{name: parts.get(name, 0) for name in ODD}}
    amounts["shmem_unmapped"] -= theirs
    large = [name for name, amount in amounts.items() if amount and ODD_SHARE * amount >= total
             and not (name == "kernel_other" and ram.source == "procfs")]  # others tell what for
    if large:
        name = max(large, key=lambda one: amounts[one])
        yield (deleted_words(ram.deleted) if name == DELETED and ram.deleted is not None
               else f"{ODD[name].format(size(parts[name]))}.")


def could_be_reclaimed(ram: Ram) -> Iterator[str]:
    """Yield a sentence about what could be reclaimed before a kill, and what could not."""
    room = ram.headroom
    if room is None:
        available = (ram.totals.meminfo or {}).get("MemAvailable")
        if available is not None:
            yield (f"The kernel estimates that {size(available)} are available without swapping"
                   " (MemAvailable).")
        return
    later = []
    if room.dirty:
        later.append(f"{size(room.dirty)} after writing them to files")
    free = (ram.totals.meminfo or {}).get("SwapFree")
    swap = min(room.swappable, free or 0)
    if swap:
        later.append(f"{size(swap)} by swapping")
    more = f", {' and '.join(later)}" if later else ""
    stuck = room.swappable - swap + room.locked + room.hugetlb + room.kernel + room.held
    no_swap = " (there is no free swap)" if free == 0 else ""
    yield (f"{size(room.at_once)} are free or could be reclaimed at once before processes are"
           f" killed{more}{kept_back(ram.protected)}; {size(stuck)} could not{no_swap}.")


def kept_back(protected: int | None) -> str:
    """Return what is said of memory.min after what could be reclaimed: nothing if it keeps none."""
    return f", but memory.min protects up to {size(protected)} of it" if protected else ""


def rows(ram: Ram, blocks: str = "") -> list[tuple[str, ...]]:
    """Return the table: a heading, the six rows, each followed by its parts, and the total."""
    assert ram.parts is not None
    groups = by_group(ram.parts)
    order: list[tuple[str, int]] = []
    for name, title in GROUPS.items():
        order.append((title, groups[name]))
        inside = [(told_apart(part, ram.parts), ram.parts[part.name]) for part in PARTS
                  if part.group == name and part.name in ram.parts]
        if inside and not (len(inside) == 1 and name == "free"):
            order += [(f"  {part.title}", amount) for part, amount in inside]
    amounts = [kib(amount) for _, amount in order]
    titles = [title for title, _ in order]
    columns = [["", *amounts, kib(ram.total)], ["WHAT", *titles, "total"]]
    if blocks:
        shares = bars([0 if title.startswith(" ") else amount for title, amount in order],
                      ram.total, blocks)
        columns.insert(1, ["SHARE", *shares, ""])
    return list(zip(*columns, strict=True))


def told_apart(part: Part, parts: dict[str, int]) -> Part:
    """Return ``part``, with struct pages in the title of what was kept at boot if it has them."""
    if part.name != "boot" or "memmap" in parts:
        return part
    return part._replace(title=f"struct pages, {part.title}")


ROOM = (
    ("free", "free"),
    ("clean_unmapped", "pages of files that nobody maps, clean"),
    ("clean_mapped", "pages of files that are mapped, clean"),
    ("lazyfree", "released with MADV_FREE"),
    ("slab_reclaimable", "slab, reclaimable, as far as no object in use pins it"),
    ("dirty", "pages of files, after writing them"),
    ("swappable", "anonymous and shared memory, as far as there is swap"),
    ("locked", "never: locked (mlock), or unevictable"),
    ("hugetlb", "never: hugetlb pages"),
    ("held", "never: on no list that the kernel reclaims from"),
    ("kernel", "never: the kernel's own"),
)


def room_rows(ram: Ram) -> list[tuple[str, str]]:
    """Return the table of what could be reclaimed: what goes first is above."""
    assert ram.headroom is not None
    return headroom_rows(ram.headroom, ram.protected)


def headroom_rows(room: Headroom, protected: int | None) -> list[tuple[str, str]]:
    """Return the table of what could be reclaimed, of RAM or of a cgroup.

    ``protected`` bytes of it are kept by memory.min, at most: their row is part of those above it.
    """
    found = [(getattr(room, name), title) for name, title in ROOM]
    kept = next(at for at, (name, _) in enumerate(ROOM) if name == "locked")
    found.insert(kept, (protected or 0, "never, of the above: protected by memory.min, at most"))
    return [("", "COULD BE RECLAIMED"),
            *((kib(amount), title) for amount, title in found if amount)]


def verdict(lines: Sequence[Line], what: str = "/proc/meminfo") -> str:
    """Return one line about the ledger: how many of its lines are equal, bounded, explained."""
    compared = [line for line in lines if line.ours is not None]
    open_ = [line for line in compared if line.unexplained]
    equal = [line for line in compared if not line.difference]
    bounded = [line for line in compared if line not in open_ and line not in equal
               and any(not cause.exact for cause in line.causes)]
    explained = len(compared) - len(open_) - len(equal) - len(bounded)
    told = [f"{len(equal)} equal"]
    if bounded:
        told.append(f"{len(bounded)} within a bound")
    if explained:
        told.append(f"{explained} explained")
    if open_:
        told.append(f"{len(open_)} unexplained")
    return f"AGAINST {what}, {len(compared)} lines: {', '.join(told)}"
