"""A JVM's performance data, written by hand as HotSpot does. Against jstat in live/test_heap.py."""

from __future__ import annotations

import struct

import pytest

from pagewalk.heap.hotspot import ENTRY, PROLOGUE, Space, parse, spaces


def data(*entries: tuple[str, int | str], order: str = "<") -> bytes:
    """Return performance data with these entries."""
    body = b""
    for name, value in entries:
        raw = name.encode() + b"\0"
        raw += bytes(-(len(raw) + 20) % 8)
        if isinstance(value, int):
            put, kind, elements = struct.pack(order + "q", value), ord("J"), 0
        else:
            put = value.encode() + b"\0"
            put, kind, elements = put + bytes(-len(put) % 8), ord("B"), len(value) + 1
        head = struct.pack(order + ENTRY, 20 + len(raw) + len(put), 20, elements, kind, 1, 1, 1,
                           20 + len(raw))
        body += head + raw + put
    prologue = struct.pack(order + PROLOGUE, b"\xca\xfe\xc0\xc0", int(order == "<"), 2, 0, 1,
                           32 + len(body), 0, 0, 32, len(entries))
    return prologue + body


TOLD: list[tuple[str, int | str]] = [
    ("sun.gc.generation.0.name", "new"), ("sun.gc.generation.0.space.0.name", "eden"),
    ("sun.gc.generation.0.space.0.capacity", 1 << 20), ("sun.gc.generation.0.space.0.used", 4096),
    ("sun.gc.generation.1.name", "old"), ("sun.gc.generation.1.space.0.name", "space"),
    ("sun.gc.generation.1.space.0.capacity", 1 << 24), ("sun.gc.generation.1.space.0.used", 8),
    ("sun.gc.metaspace.capacity", 77), ("sun.gc.metaspace.used", 66), ("java.rt.vmFlags", ""),
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_spaces_are_told(order: str) -> None:
    raw = data(*TOLD, order=order)
    assert parse(raw) == dict(TOLD)
    assert spaces(parse(raw)) == [
        Space("eden", 1 << 20, 4096), Space("old", 1 << 24, 8), Space("metaspace", 77, 66)]


def test_what_is_missing_is_left_out() -> None:
    assert spaces({}) is None
    assert spaces(dict(TOLD[:3])) is None
    assert spaces(dict(TOLD[:4])) == [Space("eden", 1 << 20, 4096)]


def test_whatever_the_bytes_are_nothing_is_raised() -> None:
    raw = data(*TOLD)
    for at in range(len(raw)):
        for byte in (0, 1, 0x7F, 0x80, 0xFF):
            parse(raw[:at] + bytes([byte]) + raw[at + 1 :])
        parse(raw[:at])
    assert parse(b"") == parse(bytes(64)) == {}
