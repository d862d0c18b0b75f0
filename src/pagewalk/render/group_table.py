"""Groups of VMAs in words: the table of what a process's memory is, and the sentences above it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from pagewalk.account.groups import BY_KEY, Group, nothing_behind, unlocked_files
from pagewalk.account.table import Table
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.terminal import bars, printable, shorten
from pagewalk.render.vma_table import fit, headings, total, vmas_counted, wide

COLUMNS = ("rss", "uss", "swap", "size")
NAMED = 2  # files of a group, the largest first; fewer where there is no room
NARROWEST = 16  # of a name
# Columns of which a group says how much there is.
SPECIAL = {"{} in huge pages": ("anon_huge", "shmem_huge", "file_huge"),
           "{} in guard regions": ("guard",)}
WITH_NAMES = {"file", "shmem", "hugetlb", "device", "named"}


def rows(
    table: Table, groups: Sequence[Group], columns: Sequence[str], room: int | None = None,
    blocks: str = "",
) -> list[tuple[str, ...]]:
    """Return the table: a heading, a line for each group, and the totals, which they add up to.

    It is at most ``room`` columns wide: where that is little, without the least wanted amounts.
    With ``blocks`` the first amount has bars: the share of each group in the total.
    """
    told = headings(columns)
    amounts = {name: [told[name], *cells(table, groups, name)] for name in columns}
    if room is not None:
        widths = {name: wide(column) for name, column in amounts.items()}
        chosen = fit(columns, widths, room - NARROWEST)
        amounts = {name: amounts[name] for name in chosen}
    shown = list(amounts.values())
    if blocks and shown:
        shown.insert(1, ["SHARE", *shares(table, groups, columns[0], blocks), ""])
    left = None if room is None else room - sum(map(wide, shown))
    names = ["WHAT", *(what(table, group, left) for group in groups), "total"]
    return list(zip(*shown, names, strict=True))


def shares(table: Table, groups: Sequence[Group], name: str, blocks: str) -> list[str]:
    if name == "vmas":
        return bars([group.vmas for group in groups], len(table.vmas), blocks)
    return bars([group.amounts[name] for group in groups], table.totals[name], blocks)


def cells(table: Table, groups: Sequence[Group], name: str) -> list[str]:
    # One for each group, and the total.
    if name == "vmas":
        return [*(str(group.vmas) for group in groups), str(len(table.vmas))]
    return [*(kib(group.amounts[name]) for group in groups), total(table, name)]


def what(table: Table, group: Group, room: int | None = None) -> str:
    """Return what a group is: its kind, how many of them, its largest members, and what is special.

    That is at most ``room`` characters long, if its kind is not longer.
    """
    room = sys.maxsize if room is None else max(room, NARROWEST)
    if group.key not in BY_KEY:
        many = f", {vmas_counted(group.vmas)}"
        return shorten(printable(group.key), room - len(many)) + many
    title = kind(table, group, room)
    notes = "".join(f", {note}" for note in special(group))
    return title + notes if len(title + notes) <= room else title


def kind(table: Table, group: Group, room: int) -> str:
    # What a group of one kind is called, and how many there are.
    title = BY_KEY[group.key].title
    if group.key in WITH_NAMES:
        told = [f"{title}: {members(table, group, named)}" for named in range(NAMED, 0, -1)]
        told.append(f"{title}, {len({table.vmas.name[row] for row in group.rows.tolist()})}")
        return shorten(next((text for text in told if len(text) <= room), told[-1]), room)
    if group.key == "arena":
        return f"{title}, {group.vmas // 2}"
    if group.key == "thread_stack":
        return f"{title}, {stacks(table, group)}"
    return title if group.vmas == 1 else f"{title}, {vmas_counted(group.vmas)}"


def special(group: Group) -> Iterator[str]:
    """Yield what of a group is in huge pages, and how much of it are guard regions."""
    for title, names in SPECIAL.items():
        amount = sum(group.amounts[name] or 0 for name in names)
        if amount:
            yield title.format(kib(amount))


def stacks(table: Table, group: Group) -> int:
    # Without the guards.
    return int((table.vmas.perms[group.rows] != 0).sum())


def members(table: Table, group: Group, count: int) -> str:
    present = table.columns["present"]
    assert present is not None
    by_name: dict[str, int] = {}
    for row in group.rows.tolist():
        name = table.vmas.name[row]
        by_name[name] = by_name.get(name, 0) + int(present[row])
    ordered = sorted(by_name, key=lambda name: -by_name[name])
    named = [f"{printable(os.path.basename(name) or name)} {kib(by_name[name])}"
             for name in ordered[:count]]
    rest = ordered[count:]
    if rest:
        amount = sum(by_name[name] for name in rest)
        named.append(f"{many(len(rest), 'other')} {kib(amount)}")
    return ", ".join(named)


def answers(table: Table, groups: Sequence[Group]) -> Iterator[str]:
    """Yield at most three sentences: what is in RAM, what could be reclaimed, what is not there."""
    totals = table.totals
    swap = f", {size(totals['swap'])} are in swap" if totals["swap"] else ""
    freed = totals["freed"]
    ending = "" if freed is None else f"; ending the process frees {size(freed)}"
    rss = totals["present"] if totals["rss"] is None else totals["rss"]
    yield f"{size(rss)} are in RAM{swap}{ending}."
    yield from could_be_had_back(table)
    whole, empty = totals["size"], nothing_behind(table)
    if whole is not None and empty is not None and 2 * empty > whole:
        reserved = sum(group.amounts["size"] or 0 for group in groups if group.key == "reserved")
        part = f", {size(reserved)} without any access" if reserved else ""
        yield (f"{size(whole)} of address space, {size(empty)} of it anonymous memory with nothing"
               f" behind it: reserved and not used, or given back{part}.")


def could_be_had_back(table: Table) -> Iterator[str]:
    """Yield a sentence about what the kernel can take back while the process runs, if there is any.

    Pages of files are dropped, if dirty after writing them; those in locked VMAs stay.
    """
    files, lazy = unlocked_files(table), table.totals.get("lazyfree")
    # Which of the files' pages other processes have locked is not known here.
    parts = [f"at most {size(files)} of files"] if files else []
    parts += [f"{size(lazy)} released with MADV_FREE"] if lazy else []
    if parts:
        locked = table.outcome.locked
        stays = "is locked, or " if locked is not None and locked.any() else ""
        rest = "" if files is None else f"; the rest {stays}can only go to swap, if there is any"
        yield f"When memory runs short the kernel takes back {' and '.join(parts)}{rest}."
