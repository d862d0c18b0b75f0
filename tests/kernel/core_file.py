"""Write a small ELF core file with the layout of /proc/kcore (fs/proc/kcore.c)."""

from __future__ import annotations

import struct

import numpy as np

LOW, HIGH = 0xFFFF888000000000, 0xFFFFEA0000000000
RANDOM = np.random.default_rng(1)
# Two pages and a bit at LOW, three pages at HIGH; the file holds HIGH first, as kcore may.
LOW_DATA = RANDOM.bytes(2 * 4096 + 100)
HIGH_DATA = RANDOM.bytes(3 * 4096)
INFO = b"OSRELEASE=6.1.0\nNUMBER(pgtable_l5_enabled)=1\nnonsense\n"


def note(name: bytes, text: bytes) -> bytes:
    """Return one ELF note; name and text are each padded to four bytes."""
    head = struct.pack("<III", len(name) + 1, len(text), 0)
    name += b"\0"
    return head + name + bytes(-len(name) % 4) + text + bytes(-len(text) % 4)


def core(segments: list[tuple[int, bytes]], notes: bytes = b"") -> bytes:
    """Return a core file with one PT_LOAD for each (address, contents), in that order."""
    count = len(segments) + 1
    at = 64 + 56 * count
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    # e_type 4 is ET_CORE, e_machine 62 is x86_64; the program headers follow the header.
    header = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), 0, 0)
    body = notes
    for address, data in segments:
        place = at + len(body)
        table += struct.pack("<IIQQQQQQ", 1, 7, place, address, 0, len(data), len(data), 4096)
        body += data
    return header + table + body
