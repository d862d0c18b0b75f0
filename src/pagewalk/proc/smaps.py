"""smaps and smaps_rollup, whose text is a block of lines for each VMA, as columns.

A process may have 65530 VMAs and more, and a block has about 25 lines. The kernel writes all blocks
in one format (show_smap, fs/proc/task_mmu.c), so they are parsed together: numpy compares each with
a template made from one of them, and only blocks that differ in more than their digits are parsed
line by line.
"""

from contextlib import suppress
from typing import NamedTuple, TypeAlias

import numpy as np

from pagewalk.model.columns import I64, U8, U64, Bool
from pagewalk.model.errors import BadText
from pagewalk.proc.files import Last, decode_name, lines, number
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target

NEWLINE, BLANK, ZERO = ord("\n"), ord(" "), ord("0")
DIGITS = 8  # SEQ_PUT_DEC() pads numbers to 8 digits; a block with a longer one does not fit
FEW = 32  # fewer blocks than this are parsed faster line by line
EDGES = 34  # most bytes the addresses take: 16 digits, a hyphen, 16 digits, a blank
TOGETHER = 4096  # blocks parsed at a time: 3 MB, which fit in the cache
NOT_HEX = 255
HEX = np.full(256, NOT_HEX, np.uint8)
HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class Smaps(NamedTuple):
    """Every VMA's block of a smaps file.

    ``start`` and ``end`` are addresses, u64. ``columns`` are the amounts by the kernel's name
    (``Rss``), i64 bytes, 0 where a block lacks the line. ``codes`` are the distinct sets of VmFlags
    (two-letter codes), ``which`` (i64) is each VMA's index into them.
    """

    start: U64
    end: U64
    columns: dict[str, I64]
    codes: tuple[frozenset[str], ...]
    which: I64

    def flagged(self, *wanted: str, without: tuple[str, ...] = ()) -> Bool:
        """Return a mask of the VMAs whose VmFlags have all of ``wanted``, none of ``without``."""
        hit = [codes.issuperset(wanted) and codes.isdisjoint(without) for codes in self.codes]
        return np.array(hit, bool)[self.which]


LastSmaps: TypeAlias = Last[Smaps]


def read_smaps(
    target: Target, stall: Stall, name: str = "smaps", last: LastSmaps | None = None
) -> Smaps:
    """Read ``smaps`` or ``smaps_rollup`` and return its columns; ``stall`` times each read.

    The kernel holds the target's lock for a whole VMA; for smaps_rollup it holds it for the whole
    walk (since 5.15 it yields to a waiter). Raises NotPermitted, ProcessGone, BadText.
    """
    text = target.read(name, stall)
    return (last or LastSmaps()).parse(text, parse_smaps)


def parse_smaps(text: bytes) -> Smaps:
    """Return the blocks of a smaps or smaps_rollup file; raises BadText.

    A VMA that was merged with its neighbour while being printed counts once.
    """
    layout = find_blocks(text)
    if layout is not None:
        with suppress(BadText):  # it is parsed again line by line, to name the line
            return without_repeats(by_template(text, layout))
    return without_repeats(by_line(text))


def without_repeats(smaps: Smaps) -> Smaps:
    # A VMA that was merged into the next one meanwhile is printed again as part of that (see
    # maps.without_repeats): only the larger block is kept.
    if (smaps.start[1:] >= smaps.end[:-1]).all():
        return smaps
    least = np.minimum.accumulate(smaps.start[::-1])[::-1]
    kept = np.append(smaps.start[:-1] < least[1:], True)
    columns = {name: column[kept] for name, column in smaps.columns.items()}
    return Smaps(smaps.start[kept], smaps.end[kept], columns, smaps.codes, smaps.which[kept])


# ---- line by line


def by_line(text: bytes) -> Smaps:
    edges: list[tuple[int, int]] = []
    columns: dict[str, dict[int, int]] = {}
    flags: list[bytes] = []
    complete = False  # VmFlags is the last line of a block
    for at, line in enumerate(lines(text, "smaps"), 1):
        try:
            key, colon, value = line.partition(b":")
            if not colon or b" " in key:
                edges.append(block(line, edges[-1][1] if edges else 0))
                flags.append(b"")
                complete = False
            elif complete:
                raise BadText("smaps", at, line)
            elif key == b"VmFlags":
                flags[-1], complete = value, True
            elif value.endswith(b" kB"):
                add(columns.setdefault(decode_name(key), {}), len(edges) - 1, value[:-3])
        except (ValueError, IndexError):
            raise BadText("smaps", at, line) from None
    table = np.array(edges, np.uint64).reshape(len(edges), 2)
    every = range(len(edges))
    amounts = {
        name: np.array([rows.get(row, 0) for row in every], np.int64)
        for name, rows in columns.items()
    }
    return Smaps(table[:, 0], table[:, 1], amounts, *codes(flags))


def block(line: bytes, above: int) -> tuple[int, int]:
    # The addresses of a block's VMA, which must end above the previous one.
    low, _, high = line.partition(b" ")[0].partition(b"-")
    start, end = number(low, 16), number(high, 16)
    if start >= end or end <= above:
        raise ValueError(line)
    return start, end


def add(column: dict[int, int], row: int, kib: bytes) -> None:
    # Adds an amount to block `row`, where each amount occurs once.
    amount = number(kib.lstrip(b" "))
    if row < 0 or row in column or amount >> 53:
        raise ValueError(kib)
    column[row] = amount << 10


def codes(flags: list[bytes]) -> tuple[tuple[frozenset[str], ...], I64]:
    # The distinct values of `flags` (the text after VmFlags:), and each block's index into them.
    rows: dict[bytes, int] = {}
    which = np.array([rows.setdefault(value, len(rows)) for value in flags], np.int64)
    return tuple(frozenset(decode_name(value).split(" ")) - {""} for value in rows), which


# ---- all at once


class Layout(NamedTuple):
    # Offsets of the blocks in a text: a block begins at `head`, its second line at `body`, its
    # VmFlags line at `flags` (= `end` if it has none). `end` is the next block's head.
    head: I64
    body: I64
    flags: I64
    end: I64


def find_blocks(text: bytes) -> Layout | None:
    """Return where the blocks of ``text`` are; None if they are few, or something looks wrong."""
    raw = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(raw == NEWLINE)
    if len(ends) == 0 or int(ends[-1]) != len(raw) - 1:
        return None
    begins = np.append(0, ends[:-1] + 1)
    first = raw[begins]
    # A key begins with a capital letter, a block with the first digit of an address.
    heads = np.flatnonzero(HEX[first] != NOT_HEX)
    keys = (first >= ord("A")) & (first <= ord("Z"))
    if len(heads) < FEW or heads[0] != 0 or int(keys.sum()) + len(heads) != len(begins):
        return None
    if int(begins[heads[-1]]) + EDGES > len(raw):
        return None
    after = np.append(heads[1:], len(begins))
    last = after - 1
    has_flags = first[last] == ord("V")
    end = np.append(begins, len(raw))[after]
    return Layout(begins[heads], ends[heads] + 1, np.where(has_flags, begins[last], end), end)


class Template(NamedTuple):
    # What all but the odd blocks look like: `text` u8[n] is the bytes after the first line; `fixed`
    # bool[n] marks those that are equal in all; `digits` i64[k, DIGITS] says where the amounts of
    # `names` are.
    text: U8
    fixed: Bool
    names: tuple[str, ...]
    digits: I64


def by_template(text: bytes, at: Layout) -> Smaps:
    raw = np.frombuffer(text, np.uint8)
    size = at.flags - at.body
    usual = int(np.bincount(size).argmax())
    alike = size == usual
    template = make_template(raw[at.body[alike][0] :][:usual])
    amounts = np.zeros((len(size), len(template.names)), np.int64)
    rows = np.flatnonzero(alike)
    for first in range(0, len(rows), TOGETHER):
        some = rows[first : first + TOGETHER]
        amounts[some], alike[some] = read_amounts(raw, at.body[some], template)
    columns = {name: amounts[:, i].copy() for i, name in enumerate(template.names)}
    read_odd(text, at, np.flatnonzero(~alike), columns)
    start, end = edges_of(raw, at)
    if (start >= end).any() or (end[1:] <= end[:-1]).any():
        raise BadText("smaps", 1, b"")
    return Smaps(start, end, columns, *codes(flags_of(text, raw, at)))


def flags_of(text: bytes, raw: U8, at: Layout) -> list[bytes]:
    # The text after VmFlags:, empty for a block without that line.
    has = np.flatnonzero(at.flags < at.end)
    key = np.frombuffer(b"VmFlags:", np.uint8)
    if (np.lib.stride_tricks.sliding_window_view(raw, len(key))[at.flags[has]] != key).any():
        raise BadText("smaps", 1, b"")
    found = [b""] * len(at.flags)
    edges = (at.flags[has] + len(key), at.end[has] - 1)
    for row, first, last in zip(has.tolist(), *(edge.tolist() for edge in edges), strict=True):
        found[row] = text[first:last]
    return found


def make_template(body: U8) -> Template:
    fixed = np.ones(len(body), bool)
    names, digits = [], []
    at = 0
    for line in lines(body.tobytes(), "smaps"):
        key, colon, value = line.partition(b":")
        edge = at + len(line)
        if not colon:
            raise BadText("smaps", 1, line)
        if value.endswith(b" kB"):
            fixed[edge - 3 - DIGITS : edge - 3] = False
            if len(value) - 3 < DIGITS or value[: -3 - DIGITS].strip(b" "):
                raise BadText("smaps", 1, line)
            names.append(decode_name(key))
            digits.append(np.arange(edge - 3 - DIGITS, edge - 3))
        else:
            fixed[at + len(key) + 1 : edge] = False
        at = edge + 1
    if len(set(names)) != len(names) or not names:
        raise BadText("smaps", 1, b"")
    return Template(body, fixed, tuple(names), np.array(digits))


def read_amounts(raw: U8, body: I64, template: Template) -> tuple[I64, Bool]:
    """Return the amounts (i64[n, k] bytes) of blocks at ``body``, and which fit ``template``."""
    rows = np.lib.stride_tricks.sliding_window_view(raw, len(template.text))[body]
    other = (rows != template.text) & template.fixed
    # anything not fixed must be a number padded with blanks
    other |= (rows - np.uint8(ZERO) > 9) & (rows != BLANK) & ~template.fixed
    usual = ~other.any(axis=1)
    cells = rows[:, template.digits]
    blank = cells == BLANK
    digit = np.where(blank, 0, cells - np.uint8(ZERO))  # below "0" this wraps to more than 9
    fits = (digit <= 9).all(axis=(1, 2)) & ~blank[:, :, -1].any(axis=1)
    fits &= ~(blank[:, :, 1:] & ~blank[:, :, :-1]).any(axis=(1, 2))
    pairs = digit[:, :, 0::2] * np.uint8(10) + digit[:, :, 1::2]  # 99 at most
    fours = pairs[:, :, 0::2].astype(np.uint16) * np.uint16(100) + pairs[:, :, 1::2]
    kib = fours[:, :, 0].astype(np.int64) * 10_000 + fours[:, :, 1]
    return kib << 10, usual & fits


def read_odd(text: bytes, at: Layout, odd: I64, columns: dict[str, I64]) -> None:
    # Parses the odd blocks line by line, into their rows of `columns`.
    if len(odd) == 0:
        return
    edges = zip(at.head[odd].tolist(), at.end[odd].tolist(), strict=True)
    found = by_line(b"".join(text[a:b] for a, b in edges))
    if len(found.start) != len(odd):  # what looked like an address was a key, or the reverse
        raise BadText("smaps", 1, b"")
    for column in columns.values():
        column[odd] = 0
    for name, amounts in found.columns.items():
        columns.setdefault(name, np.zeros(len(at.head), np.int64))[odd] = amounts


def edges_of(raw: U8, at: Layout) -> tuple[U64, U64]:
    """Return (start, end) of each block's VMA, u64 each; raises BadText."""
    wide = np.lib.stride_tricks.sliding_window_view(raw, EDGES)[at.head]
    dash = (wide == ord("-")).argmax(axis=1)
    blank = (wide == BLANK).argmax(axis=1)
    return hexadecimal(wide, np.zeros_like(dash), dash), hexadecimal(wide, dash + 1, blank)


def hexadecimal(rows: U8, begin: I64, end: I64) -> U64:
    """Return the number in columns [``begin``, ``end``) of each of ``rows``, u64.

    Raises BadText unless each has 1 to 16 hexadecimal digits.
    """
    at = end[:, None] + np.arange(-16, 0)
    inside = at >= begin[:, None]
    digits = HEX[np.take_along_axis(rows, np.maximum(at, 0), axis=1)]
    length = end - begin
    if ((digits == NOT_HEX) & inside).any() or (length < 1).any() or (length > 16).any():
        raise BadText("smaps", 1, b"")
    digits = np.where(inside, digits, 0).astype(np.uint8)
    pairs = np.ascontiguousarray(digits[:, 0::2] << 4 | digits[:, 1::2])
    return pairs.view(">u8")[:, 0].astype(np.uint64)
