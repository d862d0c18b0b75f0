"""Struct layouts from BTF, the type information a kernel carries about itself.

Only layouts are read: byte offsets, sizes, bit fields, array lengths, enumerators. The format is
Documentation/bpf/btf.rst and include/uapi/linux/btf.h.
"""

import mmap
import struct
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I32, U32
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.proc.files import decode_name

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = 9, 10, 11, 12, 13, 14, 15
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = 16, 17, 18, 19

# How deep types may nest or refer to one another: twice what the kernel's own check allows
# (kernel/bpf/btf.c, MAX_RESOLVE_DEPTH).
_DEEPEST = 64

_SIZED = frozenset(range(_INT, _ENUM64 + 1)) - {_FWD, _FUNC, _VAR, _DATASEC, _DECL_TAG}
_TRANSPARENT = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))

# Every type is three words, then this many fixed words and words per vlen, by kind. We cannot know
# the length of a kind newer than ENUM64, so the index stops there with an error.
_EXTRA_WORDS = dict.fromkeys(range(_INT, _ENUM64 + 1), (0, 0)) | {
    _INT: (1, 0), _ARRAY: (3, 0), _STRUCT: (0, 3), _UNION: (0, 3), _ENUM: (0, 2),
    _FUNC_PROTO: (0, 2), _VAR: (1, 0), _DATASEC: (0, 3), _DECL_TAG: (1, 0), _ENUM64: (0, 3),
}  # fmt: skip

_FIXED, _EACH = np.array([_EXTRA_WORDS.get(k, (0, 0)) for k in range(32)], np.int32).T.copy()
_FIXED += np.int32(3)


class Member(NamedTuple):
    """The position of a struct member.

    ``offset`` is in bytes from the start of the struct; for a bit field it is that of the byte with
    its first bit, ``bit`` (0-7) the position in that byte and ``bits`` its width (0 for an ordinary
    member). ``size`` is in bytes, for an array that of the whole array; ``elements`` is how
    many it has (1 if the member is not an array, 0 for a flexible array).
    """

    offset: int
    size: int
    bit: int = 0
    bits: int = 0
    elements: int = 1


class _Type(NamedTuple):
    """One decoded record; ``body`` is the word index after its three-word head."""

    name: int
    kind: int
    vlen: int
    kind_flag: bool
    size_or_type: int
    body: int


_VOID = _Type(0, 0, 0, False, 0, 0)


class Btf:
    """A little-endian BTF blob, such as /sys/kernel/btf/vmlinux, read or mapped.

    Raises SourceUnavailable when ``data`` is not BTF or is truncated and, here or in any method,
    when it meets a kind of type that is newer than this reader, a reference to a type or name that
    does not exist, or a type that contains itself. Types are indexed only as far as needed: those
    that matter to us are in the first eighth of a kernel's.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data, (first, last), self._strings = data, *_sections(data)
        self._words = np.frombuffer(data, "<u4", (last - first) // 4, first)
        # The word where each type begins, with [0] standing for void; where the next one begins.
        self._starts: I32 = np.zeros(1, np.int32)
        self._reached = 0
        self._structs: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._enums: dict[str, dict[str, int]] = {}
        self._places: dict[tuple[str, str], Member] = {}
        self._index(_PIECE)

    @property
    def types(self) -> int:
        """Return the number of types, not counting void."""
        self._index(len(self._words))
        return len(self._starts) - 1

    def size(self, name: str) -> int:
        """Return the size of struct, union, enum, integer or typedef ``name`` in bytes.

        Raises NotInBtf if the kernel has no such type.
        """
        if name not in self._sizes:
            self._sizes[name] = self._sizeof(self._first("type", name, _SIZED))
        return self._sizes[name]

    def has(self, struct_name: str, path: str = "") -> bool:
        """Return whether the kernel has that struct and, with ``path``, that member."""
        try:
            self.member(struct_name, path) if path else self.struct_id(struct_name)
        except NotInBtf:
            return False
        return True

    def offset(self, struct_name: str, path: str) -> int:
        """Return the offset of member ``path`` ("a.b.c") in ``struct_name``, in bytes.

        It also finds members of anonymous structs and unions. Raises NotInBtf if there is none.
        """
        return self.member(struct_name, path).offset

    def member(self, struct_name: str, path: str) -> Member:
        """Return the position of member ``path`` in a struct or union; see Member.

        Raises NotInBtf if it does not exist.
        """
        if (struct_name, path) not in self._places:
            self._places[struct_name, path] = self._member(struct_name, path)
        return self._places[struct_name, path]

    def _member(self, struct_name: str, path: str) -> Member:
        type_id, bit, width = self.struct_id(struct_name), 0, 0
        for name in path.split("."):
            step = self._find(self._resolve(type_id), self._name_offset(name))
            if step is None:
                raise NotInBtf(f"member {path} in {struct_name}")
            offset, width, type_id = step
            bit += offset
        place = Member(bit // 8, self._sizeof(type_id), bit % 8, width)
        # The integer that holds a bit field may extend beyond the struct; its bits may not.
        if bit + (width or 8 * place.size) > 8 * self._sizeof(self.struct_id(struct_name)):
            raise _refuse(f"{struct_name}.{path} is outside its struct")
        array = self._type(self._resolve(type_id))
        if array.kind != _ARRAY:
            return place
        return place._replace(elements=int(self._words[array.body + 2]))

    def enumerators(self, name: str) -> dict[str, int]:
        """Return {enumerator: value} of enum ``name``; raises NotInBtf if there is none."""
        if name not in self._enums:
            enum = self._first("enum", name, (_ENUM, _ENUM64))
            self._enums[name] = self._enumerators(self._type(enum))
        return self._enums[name]

    def enumerator(self, name: str) -> int:
        """Return the value of ``name`` in whichever enum has it, named or not.

        Raises NotInBtf if no enum of at most 32 bits has it.
        """
        # A hit is any word equal to the name's offset: it counts only if it is where an ENUM record
        # keeps a name.
        for at in np.flatnonzero(self._words == self._name_offset(name)).tolist():
            self._index(at + 1)
            type_id = int(np.searchsorted(self._starts[1:], at, "right"))
            enum = self._type(type_id)
            if enum.kind == _ENUM and at >= enum.body and (at - enum.body) % 2 == 0:
                return self._enumerators(enum)[name]
        raise NotInBtf(f"enumerator {name}")

    def function_id(self, name: str) -> int:
        """Return the type id of function ``name``; raises NotInBtf."""
        return self._first("function", name, (_FUNC,))

    def percpu(self, name: str) -> int:
        """Return where per-CPU variable ``name`` is in each CPU's area, in bytes; raises NotInBtf.

        Only vmlinux's own BTF has them.
        """
        variable = self._first("variable", name, (_VAR,))
        section = self._type(self._first("section", ".data..percpu", (_DATASEC,)))
        rows = self._words[section.body : section.body + 3 * section.vlen].reshape(-1, 3)
        places = rows[rows[:, 0] == np.uint32(variable), 1]
        if not len(places):
            raise NotInBtf(f"per-CPU variable {name}")
        return int(places[0])

    # -- types by id ----------------------------------------------------------------------------

    def _index(self, upto: int) -> None:
        # Finds where types begin, at least up to word `upto`.
        parts = [self._starts]
        while self._reached < min(upto, len(self._words)):
            starts, self._reached = _piece(self._words, self._reached)
            parts.append(starts)
        if len(parts) > 1:
            self._starts = np.concatenate(parts)

    def _index_more(self) -> bool:
        # One more piece: most of what is looked for is just beyond, and a piece takes 0.5 ms.
        before = self._reached
        self._index(before + 1)
        return self._reached > before

    def _type(self, type_id: int) -> _Type:
        if not type_id:
            return _VOID
        while type_id >= len(self._starts) and self._index_more():
            pass
        if type_id >= len(self._starts):
            raise _refuse(f"it refers to type {type_id}, but has only {len(self._starts) - 1}")
        at = int(self._starts[type_id])
        name, info, size_or_type = self._words[at : at + 3].tolist()
        return _Type(name, info >> 24 & 31, info & 0xFFFF, bool(info >> 31), size_or_type, at + 3)

    def _resolve(self, type_id: int) -> int:
        for _ in range(_DEEPEST):
            found = self._type(type_id)
            if found.kind not in _TRANSPARENT:
                return type_id
            type_id = found.size_or_type
        raise _refuse_cycle()

    def _sizeof(self, type_id: int) -> int:
        elements = 1
        for _ in range(_DEEPEST):
            found = self._type(self._resolve(type_id))
            if found.kind != _ARRAY:
                return elements * _size(found)
            type_id, _, count = self._words[found.body : found.body + 3].tolist()
            elements *= count
        raise _refuse_cycle()

    def _find(self, type_id: int, name: int) -> tuple[int, int, int] | None:
        # (first bit, bits if it is a bit field, type id) of the member of that name.
        # Searches anonymous structs and unions too, each once: a second time finds no new names,
        # and one that contains itself would never end.
        waiting, seen = [(type_id, 0)], set()
        while waiting:
            here, base = waiting.pop()
            holder = self._type(here)
            if holder.kind not in (_STRUCT, _UNION) or here in seen:
                continue
            seen.add(here)
            members = self._words[holder.body : holder.body + 3 * holder.vlen].reshape(-1, 3)
            for name_offset, member_type, place in members.tolist():
                bit, bits = (place & 0xFFFFFF, place >> 24) if holder.kind_flag else (place, 0)
                if name_offset == name:
                    return base + bit, bits, member_type
                if not name_offset:
                    waiting.append((self._resolve(member_type), base + bit))
        return None

    def _enumerators(self, enum: _Type) -> dict[str, int]:
        step = 2 if enum.kind == _ENUM else 3
        rows = self._words[enum.body : enum.body + step * enum.vlen].reshape(-1, step).tolist()
        width = 32 * (step - 1)
        values = {self._string(row[0]): row[1] | (row[2] << 32 if step == 3 else 0) for row in rows}
        if not enum.kind_flag:
            return values
        return {name: value - (value >> width - 1 << width) for name, value in values.items()}

    # -- types by name --------------------------------------------------------------------------

    def _string(self, offset: int) -> str:
        first, last = self._strings
        if first + offset >= last:
            raise _refuse(f"it refers to name byte {offset}, but has only {last - first}")
        return decode_name(self._data[first + offset : self._data.find(b"\0", first + offset)])

    def _name_offset(self, name: str) -> int:
        # The string section holds every name once, so the first hit is the only one. 0 is the empty
        # name, which every anonymous type has, so it is not an answer.
        first, last = self._strings
        at = self._data.find(b"\0" + name.encode() + b"\0", first, last)
        if at < 0 or not name:
            raise NotInBtf(f"name {name!r}")
        return at + 1 - first

    def _by_name(self, name: str) -> Iterator[int]:
        # The ids, ascending; more types are indexed only if the ids so far were not enough.
        offset, seen = np.uint32(self._name_offset(name)), 1
        while seen < len(self._starts) or self._index_more():
            here = self._starts[seen:]
            yield from (np.flatnonzero(self._words[here] == offset) + seen).tolist()
            seen += len(here)

    def struct_id(self, name: str) -> int:
        """Return the type id of struct ``name``; raises NotInBtf."""
        if name not in self._structs:
            self._structs[name] = self._find_struct(name)
        return self._structs[name]

    def _find_struct(self, name: str) -> int:
        with suppress(NotInBtf):
            return self._first("struct", name, (_STRUCT, _UNION))
        # a typedef of an anonymous struct, such as pgd_t
        return self._resolve(self._first("struct", name, (_TYPEDEF,)))

    def _first(self, what: str, name: str, kinds: Container[int]) -> int:
        for type_id in self._by_name(name):
            if self._type(type_id).kind in kinds:
                return type_id
        raise NotInBtf(f"{what} {name}")


def _refuse(why: str) -> SourceUnavailable:
    return SourceUnavailable("btf", why, "give the bytes of /sys/kernel/btf/vmlinux")


def _refuse_cycle() -> SourceUnavailable:
    return _refuse("it has types that contain or refer to themselves")


def _size(found: _Type) -> int:
    # The size in bytes of a type that is neither an array nor a typedef of one.
    if found.kind == _PTR:
        return 8
    return 0 if found.kind in (0, _FWD, _FUNC, _FUNC_PROTO) else found.size_or_type


def _sections(data: bytes | mmap.mmap) -> tuple[tuple[int, int], tuple[int, int]]:
    # The (first, last) byte of the types and of the strings.
    if len(data) < _HEADER.size:
        raise _refuse(f"the blob has {len(data)} bytes, less than a BTF header")
    magic, version, _, header, type_at, type_len, str_at, str_len = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != 1:
        raise _refuse(f"not BTF version 1: it begins with {data[:4].hex()}, not 9feb01")
    types, strings = header + type_at, header + str_at
    ends = (types + type_len, strings + str_len)
    if max(ends) > len(data) or type_len % 4:
        raise _refuse(f"the BTF is truncated: {len(data)} bytes of {max(ends)}")
    if not str_len or data[ends[1] - 1 : ends[1]] != b"\0":
        raise _refuse("its string section does not end with a zero byte")
    return (types, ends[0]), (strings, ends[1])


_PIECE = 1 << 15  # so many words that their columns fit in the cache


def _piece(words: U32, at: int) -> tuple[I32, int]:
    # The words where types begin in the piece that starts at `at`, where a type begins; and where
    # the first type after it begins. That depends on the length of the type before, so the chain
    # has to be followed link by link. Python follows only every eighth link (following all would
    # take 31 ms for 10^5 types, this takes a third of that); numpy, which knows for every word
    # where the next type would begin if one began here, fills in the others.
    length = _lengths(words, at)
    size = len(length)
    jumps = [np.minimum(np.arange(size, dtype=np.int32) + length, size)]
    jumps[0] = np.append(jumps[0], np.int32(size))  # the end links to itself
    for _ in range(3):
        jumps.append(jumps[-1].take(jumps[-1]))
    starts = _follow(jumps, size)
    after = at + int(starts[-1]) + int(length[starts[-1]])
    starts += np.int32(at)
    _check_types(words, starts, after)
    return starts, after


def _follow(jumps: list[I32], size: int) -> I32:
    # Every type in a piece that starts with one; `jumps` holds jumps over 1, 2, 4 and 8 links.
    leap, at, leaps = jumps[-1].data, 0, []
    while at < size:
        leaps.append(at)
        at = leap[at]
    starts = np.array(leaps, np.int32)
    for jump in reversed(jumps[:-1]):
        both = np.empty((len(starts), 2), np.int32)
        both[:, 0], both[:, 1] = starts, jump.take(starts)
        starts = both.reshape(-1)
    return starts[starts < size]


def _lengths(words: U32, first: int) -> I32:
    # i32: for each word from `first` on, how many words a type that begins there has. Its second
    # word holds vlen (16 bits) and kind (5 bits of the top byte).
    info = words[first + 1 : first + 1 + _PIECE]
    kind = info.view(np.uint8)[3::4] & np.uint8(31)
    length = np.empty(min(len(words) - first, _PIECE), np.int32)
    length[len(info) :] = 3  # the last word has no second word: _check_types finds it too long
    here = length[: len(info)]
    np.multiply(_EACH.take(kind), info.view(np.uint16)[::2], out=here, casting="unsafe")
    here += _FIXED.take(kind)
    return length


def _check_types(words: U32, starts: I32, after: int) -> None:
    # Not np.unique: its first call imports numpy.ma, which takes 15 ms.
    infos = words[np.minimum(starts + 1, len(words) - 1)]
    kinds = np.flatnonzero(np.bincount((infos >> 24 & 31).astype(np.intp)))
    unknown = set(kinds.tolist()) - set(_EXTRA_WORDS)
    if unknown:
        raise _refuse(f"it has types of unknown kind {min(unknown)}")
    if after > len(words):
        raise _refuse("its last type runs past the end of the type section")
