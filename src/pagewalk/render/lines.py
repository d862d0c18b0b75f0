"""Lines of text from columns, without a Python loop over rows.

Each piece is a byte matrix u8[n, width] in which 0 bytes are padding that the result omits, or a
string that is the same on each row. The functions here make pieces; `lines` puts them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagewalk.model.columns import I64, U8, U64, Bool

HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def text(piece: U8 | str, count: int) -> U8:
    """Return ``piece``, a string repeated on each of ``count`` rows."""
    if not isinstance(piece, str):
        return piece
    raw = np.frombuffer(piece.encode(errors="surrogateescape"), np.uint8)
    return np.broadcast_to(raw, (count, len(raw)))


def hexadecimal(values: U64, digits: int = 16) -> U8:
    """Return ``values`` as hexadecimal numbers of exactly ``digits`` digits."""
    shifts = np.arange(digits - 1, -1, -1, dtype=np.uint64) * np.uint64(4)
    return HEX[((values[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]


def decimal(values: U64) -> U8:
    """Return ``values`` as decimal numbers without leading zeros."""
    width = len(str(int(values.max()))) if len(values) else 1
    out = np.zeros((len(values), width), np.uint8)
    rest = values.copy()
    for column in range(width - 1, -1, -1):
        rest, digit = np.divmod(rest, np.uint64(10))
        shown = (digit != 0) | (rest != 0) | (column == width - 1)
        out[:, column] = np.where(shown, digit.astype(np.uint8) + np.uint8(48), np.uint8(0))
    return out


def labels(names: Sequence[str], index: I64 | U8) -> U8:
    """Return ``names[index]`` for each row."""
    width = max((len(n.encode(errors="surrogateescape")) for n in names), default=0)
    table = np.zeros((max(len(names), 1), max(width, 1)), np.uint8)
    for row, name in enumerate(names):
        raw = name.encode(errors="surrogateescape")
        table[row, : len(raw)] = np.frombuffer(raw, np.uint8)
    return table[index]


def where(mask: Bool, yes: U8 | str, no: U8 | str) -> U8:
    """Return ``yes`` on the rows where ``mask`` is set, ``no`` on the others."""
    yes, no = text(yes, len(mask)), text(no, len(mask))
    width = max(yes.shape[1], no.shape[1])
    return np.where(mask[:, None], widen(yes, width), widen(no, width))


def widen(piece: U8, width: int) -> U8:
    if piece.shape[1] == width:
        return piece
    return np.pad(piece, ((0, 0), (0, width - piece.shape[1])))


def ljust(piece: U8, width: int) -> U8:
    """Return ``piece`` padded on the right with blanks to ``width`` characters."""
    return blank(widen(piece, max(width, piece.shape[1])).copy())


def rjust(piece: U8, width: int) -> U8:
    """Return right-aligned ``piece`` (as `decimal` makes it) padded on the left with blanks."""
    return blank(np.pad(piece, ((0, 0), (max(width - piece.shape[1], 0), 0))))


def blank(out: U8) -> U8:
    out[out == 0] = 32
    return out


def beside(*pieces: U8 | str) -> U8:
    """Return ``pieces``, at least one of them a matrix, side by side."""
    count = next(len(piece) for piece in pieces if not isinstance(piece, str))
    return np.concatenate([text(piece, count) for piece in pieces], axis=1)


def lines(*pieces: U8 | str) -> bytes:
    """Return the rows of all ``pieces`` side by side as bytes, each ending in a newline."""
    wide = beside(*pieces, "\n")
    kept: U8 = wide[wide != 0]
    return kept.tobytes()
