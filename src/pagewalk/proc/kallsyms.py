"""/proc/kallsyms: which symbol of the kernel an address belongs to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64, U8, U64, Rows, take
from pagewalk.model.errors import BadText
from pagewalk.proc.files import decode_name, read_bytes, words

PATH = "/proc/kallsyms"
_DIGITS = 16
_CODE = np.frombuffer(b"tTwW", np.uint8)
# What each byte is as a hexadecimal digit, 255 if it is none.
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


class Functions(Rows):
    """Functions by ascending address: ``address`` u64; ``at`` and ``end`` i64, of the name."""

    address: U64
    at: I64
    end: I64


class Kallsyms(NamedTuple):
    """The text of kallsyms, of whose 100,000 lines few are wanted, and where they are in it."""

    text: bytes
    functions: Functions


def read_kallsyms() -> Kallsyms:
    """Read /proc/kallsyms; raises OSError, BadText."""
    return parse_kallsyms(read_bytes(PATH))


def names_at(symbols: Kallsyms, addresses: U64) -> list[str | None]:
    """Return the function that each of ``addresses`` (u64[n]) is in or behind, if any.

    One of a module has the module's name behind it, in brackets. None of them is known if the
    kernel does not show addresses: then they are all zero.
    """
    text, functions = symbols
    if not functions.address.any():
        return [None] * len(addresses)
    at = np.searchsorted(functions.address, addresses, side="right") - 1
    # of several names for one address, the kernel takes the first (get_symbol_pos)
    at = np.where(at < 0, -1, np.searchsorted(functions.address, functions.address[at]))
    names = {
        row: decode_name(text[functions.at[row] : functions.end[row]].replace(b"\t", b" "))
        for row in set(at.tolist()) - {-1}
    }
    return [names.get(row) for row in at.tolist()]


def address_of(text: bytes, name: str) -> int | None:
    """Return the address of a symbol of the kernel itself, None if it has none of that name."""
    # The text has 10 MB: a regular expression takes a tenth of a second.
    end = text.find(f" {name}\n".encode())
    if end < 0:
        return None
    address, kind = (*words(text[text.rfind(b"\n", 0, end) + 1 : end]), b"", b"")[:2]
    return int(address, 16) if kind else None


def apart(symbols: Kallsyms, first: str, last: str) -> int | None:
    """Return how many bytes lie between two symbols of the kernel, None if they are not shown."""
    at = [found for name in (first, last) if (found := address_of(symbols.text, name)) is not None]
    return at[1] - at[0] if len(at) == 2 and at[1] > at[0] else None


def parse_kallsyms(text: bytes) -> Kallsyms:
    """Return the functions in ``text``; raises BadText."""
    return Kallsyms(text, _functions(text))


def _functions(text: bytes) -> Functions:
    data: U8 = np.frombuffer(text, np.uint8)
    end = np.flatnonzero(data == ord("\n"))
    start = np.append(0, end[:-1] + 1) if len(end) else end
    if len(data) != (end[-1] + 1 if len(end) else 0) or (end - start < _DIGITS + 4).any():
        short = text.rpartition(b"\n")[2] or b"a line is too short"
        raise BadText("kallsyms", len(end) + 1, short)
    address, bad = np.zeros(len(start), np.uint64), np.zeros(len(start), bool)
    for place in range(_DIGITS):
        digit = _HEX[data[start + place]]
        bad |= digit > 15
        address = address << np.uint64(4) | digit
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise BadText("kallsyms", row + 1, text[start[row] : end[row]])
    every = Functions(address, start + _DIGITS + 3, end)
    code = take(every, np.isin(data[start + _DIGITS + 1], _CODE))
    return take(code, np.argsort(code.address, kind="stable"))
