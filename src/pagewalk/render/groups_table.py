"""The table of `cgroups`: all groups as a tree, the largest first, and what keeps removed ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pagewalk.render import group_words
from pagewalk.render.amounts import kib, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.terminal import following, printable, say, say_grid, say_missing, width
from pagewalk.system.group import Dying
from pagewalk.system.survey import outermost_removed

if TYPE_CHECKING:
    from pagewalk.kernel.structs.memcgs import Memcgs
    from pagewalk.model.columns import I64
    from pagewalk.system.containers import Name
    from pagewalk.system.group_table import Amounts, GroupTable, Keeper

COLUMNS = ("charged", "limit", "reclaimable", "anon", "file", "shmem", "kernel", "unmapped")
AMOUNTS = ("anon", "file", "shmem", "kernel", "unmapped", "reclaimable")
FIELDS = ("charged", "limit", *AMOUNTS)
FROM_FRAMES = ("unmapped", "reclaimable")  # what counters do not tell
NAMED = 3  # files that keep a removed group
KEPT = 36  # columns that a name keeps, where something can be hidden
LEAST_WANTED = ("kernel", "shmem", "anon", "file", "unmapped")  # hidden first on a narrow terminal


def nearest(table: GroupTable) -> int | None:
    """Return the row of the group that is nearest to its limit, None if none has one."""
    groups = table.groups
    limited = np.flatnonzero((groups.limit > 0) & ~groups.removed)
    if not len(limited):
        return None
    share = table.amounts.usage[limited] / groups.limit[limited]
    return int(limited[int(np.argmax(share))])


def answers(table: GroupTable, names: Mapping[int, Name] | None = None) -> Iterator[str]:
    """Yield at most three sentences: how many groups, which is the fullest, how many live on."""
    groups = table.groups
    living = int((~groups.removed).sum())
    yield f"{living} memory cgroups; {size(int(table.amounts.usage[0]))} are charged in all."
    row = nearest(table)
    if row is not None:
        yield (f"Nearest to its limit is {called(table, names or {}, row, None)}:"
               f" {size(int(table.amounts.usage[row]))} of {size(int(groups.limit[row]))}.")
    gone = removed(table)
    if gone.groups:
        one = gone.groups == 1
        told = "its counter, which may be out of date, says" if one else (
            "their counters, which may be out of date, say")
        yield (f"{gone.groups} removed group{' lives' if one else 's live'} on, with"
               f" {size(gone.found)} found in RAM ({told} {size(gone.charged)}): pagewalk cgroups"
               f" --dying says what keeps {'it' if one else 'them'}.")


def removed(table: GroupTable) -> Dying:
    """Return what there is of removed groups, each byte once."""
    top = outermost_removed(table.groups)
    charged, held = (int(column[top].sum()) for column in (
        table.groups.usage, found(table.amounts)))
    return Dying(int(table.groups.removed.sum()), charged, held)


def found(amounts: Amounts) -> I64:
    """Return what was found of the charge of each group, bytes."""
    return amounts.anon + amounts.file + amounts.shmem + amounts.kernel


def tree(groups: Memcgs, usage: I64, *, removed: bool = False) -> list[tuple[int, int]]:
    """Return (row, depth) of the groups as a tree, the largest of each level first."""
    below: dict[int, list[int]] = {}
    for row, parent in enumerate(groups.parent.tolist()):
        if removed or not groups.removed[row]:
            below.setdefault(parent, []).append(row)
    order: list[tuple[int, int]] = []
    waiting = [(row, 0) for row in below.get(-1, [])]
    while waiting:
        row, depth = waiting.pop()
        order.append((row, depth))
        waiting += [(one, depth + 1)
                    for one in sorted(below.get(row, []), key=lambda one: int(usage[one]))]
    return order


def called(table: GroupTable, names: Mapping[int, Name], row: int, depth: int | None) -> str:
    """Return what a group is called: in a tree its last part, and the name that a person knows."""
    path = table.groups.path[row]
    own = path if depth is None or path == "/" else "  " * depth + path.rpartition("/")[2]
    name = names.get(row)
    if name is None or not name.engine or name.name in path:
        return printable(own)
    return f"{printable(own)} = {group_words.called(name)}"


def text(
    table: GroupTable, rows: Sequence[tuple[int, int | None]], names: Mapping[int, Name],
    out: TextIO, *, columns: Sequence[str] | None = None, total: int = 0,
) -> None:
    """Write the sentences and the groups ``rows`` (row, depth in the tree or None)."""
    for sentence in answers(table, names):
        say(sentence, out)
    print(file=out)
    hidden = FROM_FRAMES if table.amounts.unmapped is None else ()
    shown = [name for name in COLUMNS if name not in hidden] if columns is None else columns
    above = titles("cgroups")
    grid = [(*(above[name] for name in shown), "CGROUP")]
    grid += [(*(cell(table, name, row) for name in shown), called(table, names, row, depth))
             for row, depth in rows]
    least = [at for name in LEAST_WANTED for at, one in enumerate(shown) if one == name]
    say_grid(grid, {len(shown)}, out, room=width(out), yields=len(shown), keeps=KEPT, least=least)
    if len(rows) < total:
        say(f"{total - len(rows)} more: --limit {total} shows all", out)
    by_row = {keeper.row: keeper for keeper in table.keepers}
    for row, _ in rows:
        if row in by_row:
            say(kept(table, by_row[row]), out)
    say_missing(table.withheld, out)
    following(out, *next_group(table, rows), "ram")


def next_group(table: GroupTable, rows: Sequence[tuple[int, int | None]]) -> Iterator[str]:
    """Yield the command that explains the group nearest to its limit, else the largest listed."""
    full = nearest(table)
    listed = [row for row, _ in rows if table.groups.path[row] != "/"
              and not table.groups.removed[row]]
    for row in [*([] if full is None else [full]), *listed][:1]:
        yield f"explain --cgroup {shlex.quote(printable(table.groups.path[row]))}"


def amount(table: GroupTable, row: int, name: str) -> int | None:
    """Return one of FIELDS of the group at ``row``, in bytes.

    None for a limit that is not set, and for what only frames tell if they are not visible.
    """
    if name == "limit":
        limit = int(table.groups.limit[row])
        return None if limit < 0 else limit
    column = getattr(table.amounts, "usage" if name == "charged" else name)
    return None if column is None else int(column[row])


def cell(table: GroupTable, name: str, row: int) -> str:
    value = amount(table, row, name)
    return "-" if value is None and name == "limit" else kib(value)


def kept(table: GroupTable, keeper: Keeper) -> str:
    """Return a sentence about what keeps a removed group."""
    path = printable(table.groups.path[keeper.row])
    below, anon = table.groups.parent == keeper.row, table.amounts.anon
    own = int(anon[keeper.row] - anon[below].sum())
    held = [f"{size(own)} of anonymous memory, of processes that moved away"] if own else []
    files = sorted(keeper.files.files, key=lambda one: -one.amounts.cached)
    held += [f"{size(one.amounts.cached)} of {group_words.file_name(one)}"
             for one in files[:NAMED]]
    held += [f"{size(amount)} of {printable(name)} objects" for name, amount in keeper.caches]
    if not held:
        return f"{path} was removed and lives on" + (
            " because of groups below it" if below.any() else
            ": nothing in RAM is charged to it any more (its kernel memory is its parent's now)")
    return f"{path} was removed but is kept alive by {'; '.join(held)}"


def json(
    table: GroupTable, rows: Sequence[tuple[int, int | None]], names: Mapping[int, Name],
    out: TextIO, *, columns: Sequence[str] | None = None, **_: object,
) -> None:
    """Write the groups ``rows`` with every amount, or with the ``columns``."""
    write({
        "cgroups": [fields("cgroups", document(table, row, names), columns) for row, _ in rows],
        "removed": None if table.amounts.unmapped is None else removed(table)._asdict(),
        "dying": [{"path": table.groups.path[one.row], "kept_by": kept(table, one)}
                  for one in table.keepers],
        **missing(table.withheld),
    }, out)


def document(table: GroupTable, row: int, names: Mapping[int, Name]) -> dict[str, Any]:
    name = names.get(row)
    return {
        "path": table.groups.path[row],
        "name": None if name is None else name.name,
        "kind": None if name is None else name.kind or None,
        "removed": bool(table.groups.removed[row]),
        **{field: amount(table, row, field) for field in FIELDS},
    }
