"""Write small BTF blobs by hand, as Documentation/bpf/btf.rst lays them out."""

from __future__ import annotations

import struct

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
CONST, FUNC, FUNC_PROTO, VAR, DATASEC, ENUM64 = 10, 12, 13, 14, 15, 19


class BtfWriter:
    """A collection of types; each method that adds one returns the new type's id."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name: str, kind: int, vlen: int, flag: int, size: int, *words: int) -> int:
        info = flag << 31 | kind << 24 | vlen
        head = struct.pack("<III", self.name(name), info, size)
        self.types += head + b"".join(struct.pack("<I", word & 0xFFFFFFFF) for word in words)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int) -> int:
        return self.add(name, INT, 0, 0, size, size * 8)

    def array(self, element: int, index: int, count: int) -> int:
        return self.add("", ARRAY, 0, 0, 0, element, index, count)

    def members(
        self,
        name: str,
        size: int,
        *members: tuple[str, int, int],
        kind: int = STRUCT,
        flag: int = 0,
    ) -> int:
        words = [
            word for text, type_id, place in members for word in (self.name(text), type_id, place)
        ]
        return self.add(name, kind, len(members), flag, size, *words)

    def enum(self, name: str, **values: int) -> int:
        signed = int(any(value < 0 for value in values.values()))
        words = [word for text, value in values.items() for word in (self.name(text), value)]
        return self.add(name, ENUM, len(values), signed, 4, *words)

    def enum64(self, name: str, **values: int) -> int:
        signed = int(any(value < 0 for value in values.values()))
        words = [
            word
            for text, value in values.items()
            for word in (self.name(text), value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
        ]
        return self.add(name, ENUM64, len(values), signed, 8, *words)

    def blob(self) -> bytes:
        header = (0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("<HBBIIIII", *header) + self.types + self.strings
