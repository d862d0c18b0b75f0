"""BTF: layouts written by hand, below the C that they stand for; and the running kernel's."""

from __future__ import annotations

import ctypes
import struct
import time
from pathlib import Path

import pytest

from pagewalk.kernel.structs.btf import Btf, Member
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from tests.kernel import btf_writer
from tests.kernel.btf_writer import BtfWriter

VMLINUX = Path("/sys/kernel/btf/vmlinux")


def small() -> BtfWriter:
    # typedef unsigned long ulong;
    # struct inner { u32 x; u8 grid[2][3]; };
    # struct outer {
    #     ulong flags;                          0
    #     union { void *ptr;                    8
    #             struct { u32 lo, hi; }; };    8, 12
    #     const struct inner in;                16 (x 16, grid 20)
    #     u32 first : 3, second : 9;            bits 0-2 and 3-11 of byte 28
    #     u64 tail[];                           32
    # };
    w = BtfWriter()
    u64, u32, u8 = w.integer("unsigned long", 8), w.integer("u32", 4), w.integer("u8", 1)
    ulong = w.add("ulong", btf_writer.TYPEDEF, 0, 0, u64)
    pointer = w.add("", btf_writer.PTR, 0, 0, 0)
    row = w.array(u8, u32, 3)
    grid = w.array(row, u32, 2)
    inner = w.members("inner", 12, ("x", u32, 0), ("grid", grid, 32))
    pair = w.members("", 8, ("lo", u32, 0), ("hi", u32, 32))
    either = w.members("", 8, ("ptr", pointer, 0), ("", pair, 0), kind=btf_writer.UNION)
    const = w.add("", btf_writer.CONST, 0, 0, inner)
    flexible = w.array(u64, u32, 0)
    # With the kind flag, the top byte of an offset is the width in bits.
    w.members(
        "outer",
        32,
        ("flags", ulong, 0),
        ("", either, 64),
        ("in", const, 128),
        ("first", u32, 3 << 24 | 224),
        ("second", u32, 9 << 24 | 227),
        ("tail", flexible, 256),
        flag=1,
    )
    w.enum("colour", RED=0, GREEN=7, GONE=-1)
    w.enum("", NAMELESS=42)
    w.enum64("wide", TOP=1 << 63, LOW=1)
    w.enum64("wide_signed", MINUS=-2)
    # Kinds with extra words must be skipped, whatever those words are.
    proto = w.add("", btf_writer.FUNC_PROTO, 2, 0, u32, w.name("a"), u32, w.name("b"), u64)
    w.add("outer", btf_writer.FUNC, 0, 0, proto)
    variable = w.add("percpu", btf_writer.VAR, 0, 0, u64, 1)
    w.add(".data", btf_writer.DATASEC, 1, 0, 8, variable, 0, 8)
    second = w.add("of_each_cpu", btf_writer.VAR, 0, 0, u64, 1)
    w.add(".data..percpu", btf_writer.DATASEC, 2, 0, 640, variable, 0, 8, second, 0x240, 8)
    w.add("of_no_section", btf_writer.VAR, 0, 0, u64, 1)
    w.members("last", 4, ("only", u32, 0))
    return w


@pytest.fixture(params=[8, 1 << 15])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index 8 words at a time, so that lookups often extend the index; and all at once."""
    monkeypatch.setattr("pagewalk.kernel.structs.btf._PIECE", request.param)

@pytest.mark.usefixtures("piece")
def test_per_cpu_variables_have_places_in_the_area_of_a_cpu() -> None:
    btf = Btf(small().blob())
    assert (btf.percpu("percpu"), btf.percpu("of_each_cpu")) == (0, 0x240)
    for missing in ("of_no_section", "outer", "last"):
        with pytest.raises(NotInBtf):
            btf.percpu(missing)
    with pytest.raises(NotInBtf):
        Btf(BtfWriter().blob()).percpu("percpu")



@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("flags", Member(0, 8)),
        ("ptr", Member(8, 8)),
        ("lo", Member(8, 4)),
        ("hi", Member(12, 4)),
        ("in", Member(16, 12)),
        ("in.x", Member(16, 4)),
        ("in.grid", Member(20, 6, elements=2)),
        ("first", Member(28, 4, bit=0, bits=3)),
        ("second", Member(28, 4, bit=3, bits=9)),
        ("tail", Member(32, 0, elements=0)),
    ],
)
def test_members(path: str, expected: Member) -> None:
    assert Btf(small().blob()).member("outer", path) == expected


@pytest.mark.usefixtures("piece")
def test_a_struct_is_found_despite_a_function_of_the_same_name() -> None:
    btf = Btf(small().blob())
    assert btf.size("outer") == 32
    assert btf.offset("last", "only") == 0


@pytest.mark.usefixtures("piece")
def test_enumerators() -> None:
    btf = Btf(small().blob())
    assert btf.enumerators("colour") == {"RED": 0, "GREEN": 7, "GONE": -1}
    assert btf.enumerators("wide") == {"TOP": 1 << 63, "LOW": 1}
    assert btf.enumerators("wide_signed") == {"MINUS": -2}
    assert btf.enumerator("NAMELESS") == 42


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    "ask",
    [
        lambda btf: btf.offset("outer", "nothing"),
        lambda btf: btf.offset("nothing", "flags"),
        lambda btf: btf.offset("outer", "flags.deeper"),
        lambda btf: btf.size("nothing"),
        lambda btf: btf.size(""),
        lambda btf: btf.enumerators("outer"),
        lambda btf: btf.enumerator("flags"),
    ],
)
def test_a_missing_name_is_a_lookup_error(ask: object) -> None:
    with pytest.raises(LookupError):
        ask(Btf(small().blob()))  # type: ignore[operator]


@pytest.mark.usefixtures("piece")
def test_has() -> None:
    btf = Btf(small().blob())
    assert btf.has("outer")
    assert btf.has("outer", "in.grid")
    assert not btf.has("outer", "out")
    assert not btf.has("nothing")


def test_an_empty_type_section_has_no_types() -> None:
    assert Btf(BtfWriter().blob()).types == 0


@pytest.mark.usefixtures("piece")
def test_types_are_counted() -> None:
    writer = small()
    assert Btf(writer.blob()).types == writer.count


@pytest.mark.parametrize("size", range(0, len(small().blob()), 7))
def test_every_truncation_is_refused(size: int) -> None:
    with pytest.raises(SourceUnavailable, match="BTF"):
        Btf(small().blob()[:size])


def test_foreign_data_is_refused() -> None:
    with pytest.raises(SourceUnavailable, match="7f454c46"):
        Btf(b"\x7fELF" + bytes(100))


def test_an_unknown_kind_is_refused() -> None:
    writer = small()
    writer.add("future", 25, 0, 0, 0)
    with pytest.raises(SourceUnavailable, match="unknown kind 25"):
        Btf(writer.blob())


def test_a_type_that_runs_past_the_end_is_refused() -> None:
    writer = small()
    writer.add("liar", btf_writer.STRUCT, 5, 0, 40)
    with pytest.raises(SourceUnavailable, match="runs past the end"):
        Btf(writer.blob())


def test_strings_without_an_end_are_refused() -> None:
    writer = small()
    writer.strings += b"open"
    with pytest.raises(SourceUnavailable, match="zero byte"):
        Btf(writer.blob())


# In these blobs the next type has the id writer.count + 1, so a type can refer to itself.


def ring(kind: int, *, of: int) -> bytes:
    """Return a BTF with struct s { t x; }, where ``of`` types of ``kind`` form a ring."""
    writer = BtfWriter()
    for at in range(of):
        below = 1 if at == of - 1 else writer.count + 2
        if kind == btf_writer.ARRAY:
            writer.array(below, below, 2)
        else:
            writer.add("t", kind, 0, 0, below)
    writer.members("s", 8, ("x", 1, 0))
    return writer.blob()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("of", [1, 2, 1000])
@pytest.mark.parametrize("kind", [btf_writer.TYPEDEF, btf_writer.CONST, btf_writer.ARRAY])
def test_types_that_refer_to_or_contain_themselves_are_refused(kind: int, of: int) -> None:
    btf = Btf(ring(kind, of=of))
    with pytest.raises(SourceUnavailable, match="themselves"):
        btf.offset("s", "x")
    with pytest.raises(SourceUnavailable, match=r"themselves|has no"):
        btf.size("t")


@pytest.mark.timeout(10)
def test_an_anonymous_struct_that_contains_itself_is_searched_once() -> None:
    writer = BtfWriter()
    number = writer.integer("u32", 4)
    # Each contains the next one twice, which makes 2**40 paths, and the last one the first.
    for at in range(40):
        below = writer.count + 2 if at < 39 else 2
        writer.members("" if at else "s", 8, ("", below, 0), ("", below, 32))
    writer.name("x")
    btf = Btf(writer.blob())
    assert not btf.has("s", "x")
    assert number == 1


@pytest.mark.parametrize("beyond", [3, 1000, 0xFFFFFFFF])
def test_an_id_out_of_range_is_refused(beyond: int) -> None:
    writer = BtfWriter()
    writer.members("s", 8, ("x", beyond, 0))
    writer.add("t", btf_writer.TYPEDEF, 0, 0, beyond)
    for ask in (lambda: Btf(writer.blob()).offset("s", "x"), lambda: Btf(writer.blob()).size("t")):
        with pytest.raises(SourceUnavailable, match=f"refers to type {beyond}, but has only 2"):
            ask()


def test_void_has_no_size_and_no_members() -> None:
    writer = BtfWriter()
    writer.members("s", 8, ("x", 0, 0))
    assert Btf(writer.blob()).member("s", "x") == Member(0, 0)
    assert not Btf(writer.blob()).has("s", "x.y")


def test_a_name_out_of_range_is_refused() -> None:
    writer = BtfWriter()
    writer.add("e", btf_writer.ENUM, 1, 0, 4, 5000, 1)
    with pytest.raises(SourceUnavailable, match="name byte 5000, but"):
        Btf(writer.blob()).enumerators("e")


def test_a_name_may_hold_any_byte() -> None:
    writer = BtfWriter()
    writer.enum("e", NAME=1)
    blob = writer.blob().replace(b"NAME", b"N\xff\rE")
    assert Btf(blob).enumerators("e") == {"N\udcff\rE": 1}


def test_a_member_outside_its_struct_is_refused() -> None:
    writer = BtfWriter()
    number = writer.integer("u32", 4)
    writer.members("s", 8, ("in", number, 32), ("out", number, 33))
    # A bit field's own bits count, not the integer that they are part of.
    writer.members("bits", 1, ("in", number, 3 << 24 | 5), ("out", number, 3 << 24 | 6), flag=1)
    btf = Btf(writer.blob())
    assert btf.offset("s", "in") == 4
    assert btf.member("bits", "in") == Member(0, 4, 5, 3)
    for struct_name in ("s", "bits"):
        with pytest.raises(SourceUnavailable, match="outside its struct"):
            btf.offset(struct_name, "out")


class Iovec(ctypes.Structure):
    # include/uapi/linux/uio.h
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


class Rlimit64(ctypes.Structure):
    # include/uapi/linux/resource.h
    _fields_ = (("rlim_cur", ctypes.c_uint64), ("rlim_max", ctypes.c_uint64))


class Pollfd(ctypes.Structure):
    # include/uapi/asm-generic/poll.h
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "c_type"), [("iovec", Iovec), ("rlimit64", Rlimit64), ("pollfd", Pollfd)]
)
def test_user_abi_structs_are_laid_out_as_in_the_c_abi(
    name: str, c_type: type[ctypes.Structure]
) -> None:
    btf = Btf(VMLINUX.read_bytes())
    assert btf.size(name) == ctypes.sizeof(c_type)
    for field, *_ in c_type._fields_:
        place = getattr(c_type, field)
        assert btf.member(name, field) == Member(place.offset, place.size)


@pytest.mark.live
def test_the_kernels_own_index_agrees_with_a_plain_walk() -> None:
    # The reader follows only every eighth link; this follows each, as the format describes it.
    data = VMLINUX.read_bytes()
    header, at, size = struct.unpack_from("<4xIII", data)
    extra = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8)}
    extra |= {14: (4, 0), 15: (0, 12), 17: (4, 0), 19: (0, 12)}
    place, end, count = header + at, header + at + size, 0
    while place < end:
        (info,) = struct.unpack_from("<I", data, place + 4)
        fixed, each = extra.get(info >> 24 & 31, (0, 0))
        place += 12 + fixed + each * (info & 0xFFFF)
        count += 1
    assert place == end
    assert Btf(data).types == count


def test_an_unknown_kind_matters_only_where_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagewalk.kernel.structs.btf._PIECE", 8)
    writer = small()
    writer.add("newer", 25, 0, 0, 0)
    btf = Btf(writer.blob())
    assert btf.offset("inner", "grid") == 4
    with pytest.raises(SourceUnavailable, match="unknown kind 25"):
        btf.size("newer")


@pytest.mark.live
def test_the_index_is_quick() -> None:
    # 15 to 30 ms of CPU time here for all types; the limit is the documented one.
    data = VMLINUX.read_bytes()
    times = []
    for _ in range(20):  # it takes longer on a CPU with a busy cache and sibling thread
        begin = time.process_time()
        btf = Btf(data)
        assert btf.offset("task_struct", "mm") and btf.types
        times.append(time.process_time() - begin)
        if times[-1] < 0.1:
            break
    assert min(times) < 0.1
