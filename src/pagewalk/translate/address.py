"""Addresses as people write them: ``7ffd5000``, ``heap+0x1000``, ``stack-8``, ``libc.so.6+0x2000``.

Pure. Every number is hexadecimal, with or without 0x.
"""

from __future__ import annotations

import re

import numpy as np

from pagewalk.model.columns import VMAs
from pagewalk.model.errors import BadRequest
from pagewalk.pagetables.format import Arch

NUMBER = re.compile(r"(0x)?[0-9a-f]+", re.IGNORECASE)
SUM = re.compile(r"(.+)([+-])((0x)?[0-9a-f]+)", re.IGNORECASE | re.DOTALL)
DELETED = " (deleted)"
NEWLINE = r"\012"  # seq_file_path() and anon_name escape nothing else
LISTED = 12  # names that an error lists: more would bury the message


def locate(text: str, vmas: VMAs) -> int:
    """Return the address that ``text`` means: a number, or the name of a VMA, and an offset.

    NAME is what ``called`` takes. NAME+N counts from the first byte of its first VMA, as
    symbolisers and backtraces count from a library's load address; NAME-N counts back from the end
    of its last one. Raises BadRequest for a name that no VMA has or that several files share, and
    for a number beyond 64 bits.
    """
    low, high = place(text, vmas) or split(text, vmas)
    if not 0 <= low < 1 << 64 or high < 0:
        raise BadRequest(f"'{text}' is not an address: it exceeds 64 bits")
    return low


def split(text: str, vmas: VMAs) -> tuple[int, int]:
    # What is neither a number nor a name as it stands must be one of these plus an offset.
    match = SUM.fullmatch(text)
    base = place(match[1], vmas) if match else None
    if match is None or base is None:
        raise BadRequest(f"'{match[1] if match else text}' is neither a hexadecimal address nor the"
                         f" name of a VMA; {nearest(match[1] if match else text, vmas)}choose"
                         f" from: {listed(vmas)}")
    offset = int(match[3], 16)
    at = base[0] + offset if match[2] == "+" else base[1] - offset
    return at, at


def place(text: str, vmas: VMAs) -> tuple[int, int] | None:
    """Return [start, end) of what ``text`` names, empty for an address; None if nothing matches."""
    if NUMBER.fullmatch(text):
        return int(text, 16), int(text, 16)
    rows = called(text, vmas)
    if not rows:
        return None
    names = sorted({vmas.name[row] for row in rows})
    if len(names) > 1:
        raise BadRequest(f"'{text}' could be any of {', '.join(names)}; give the full name")
    files = {(int(vmas.dev[row]), int(vmas.inode[row])) for row in rows}
    if len(files) > 1:
        raise BadRequest(f"{len(files)} mapped files are called '{text}'; give an address (see"
                         " pagewalk maps)")
    return int(vmas.start[rows[0]]), int(vmas.end[rows[-1]])


def called(text: str, vmas: VMAs) -> list[int]:
    """Return the rows of the VMAs called ``text``: a path, its last component, heap, stack, vdso.

    A name exactly as maps prints it takes precedence over the shorter forms, so that a file and a
    deleted one of the same name can be distinguished.
    """
    known = {name: known_as(name) for name in set(vmas.name) if name}
    whole = {name for name in known if name == text}
    names = whole or {name for name, ways in known.items() if text in ways}
    return [row for row, name in enumerate(vmas.name) if name in names]


def known_as(name: str) -> set[str]:
    """Return the names by which a VMA called ``name`` may be given.

    maps writes a newline in a name as ``\\012``; both spellings are accepted.
    """
    if name.startswith("[") and name.endswith("]"):
        ways = {name, name[1:-1]}
    else:
        path = name.removesuffix(DELETED)
        ways = {full for way in (name, path) for full in (way, way.rpartition("/")[2]) if full}
    return ways | {way.replace(NEWLINE, "\n") for way in ways}


def listed(vmas: VMAs) -> str:
    """Return the shortest names of the first few VMAs, for an error message."""
    shortest = (min(known_as(name), key=lambda way: (len(way), way)) for name in vmas.name if name)
    names = [way.replace("\n", NEWLINE) for way in dict.fromkeys(shortest)]
    more = f" and {len(names) - LISTED} more (see pagewalk maps)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def nearest(text: str, vmas: VMAs) -> str:
    """Return a question naming the VMA that ``text`` may have meant, empty if none is like it."""
    from difflib import get_close_matches

    known = dict.fromkeys(way for name in dict.fromkeys(vmas.name) if name
                          for way in sorted(known_as(name)))
    near = [way for way in known if text and way.startswith(text)][:1]
    near = near or get_close_matches(text, known, 1)
    return f"did you mean '{near[0].replace(chr(10), NEWLINE)}'? " if near else ""


def check_canonical(addr: int, arch: Arch) -> None:
    """Raise BadRequest if no page table of ``arch`` can map ``addr``."""
    if arch.user_end <= addr < (1 << 64) - arch.user_end:
        top = arch.user_end.bit_length() - 1
        raise BadRequest(
            f"{addr:#x} is not canonical: with {len(arch.levels)}-level page tables bits 63 to"
            f" {top} must be equal, so no entry can map it; user addresses end at"
            f" {arch.user_end:#x}"
        )


def holder_of(vmas: VMAs, addr: int) -> int | None:
    """Return the row of the VMA that contains ``addr``, None if there is none."""
    row = int(np.searchsorted(vmas.start, np.uint64(addr), side="right")) - 1
    return row if row >= 0 and addr < int(vmas.end[row]) else None
