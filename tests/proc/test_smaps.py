"""smaps and smaps_rollup, on recorded text, parsed together and line by line."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.smaps import FEW, Smaps, by_line, find_blocks, parse_smaps, without_repeats

RECORDED = b"""\
55d1be1c3000-55d1be1e4000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
Rss:                  12 kB
Pss:                   7 kB
Swap:                  4 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd wr mr mw me ac lo
7f1c00001000-7f1c00002000 r--p 00001000 fe:00 77                         /tmp/Rss: 9 kB
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd mr mw me
"""


def test_amounts_are_bytes_by_the_kernels_name() -> None:
    smaps = parse_smaps(RECORDED)
    assert {k: v.tolist() for k, v in smaps.columns.items()} == {
        "Size": [135168, 4096], "KernelPageSize": [4096, 0], "Rss": [12288, 4096],
        "Pss": [7168, 0], "Swap": [4096, 0],
    }


def test_a_block_begins_at_its_addresses_whatever_the_files_name_is() -> None:
    smaps = parse_smaps(RECORDED)
    assert smaps.start.tolist() == [0x55D1_BE1C_3000, 0x7F1C_0000_1000]
    assert smaps.end.tolist() == [0x55D1_BE1E_4000, 0x7F1C_0000_2000]


def test_vmflags_are_looked_up_by_code() -> None:
    smaps = parse_smaps(RECORDED)
    assert smaps.flagged("lo").tolist() == [True, False]
    assert smaps.flagged("rd").tolist() == [True, True]
    assert smaps.flagged("rd", without=("lo",)).tolist() == [False, True]
    assert smaps.flagged("rd", "wr").tolist() == [True, False]


def test_a_rollup_is_one_block() -> None:
    rollup = parse_smaps(
        b"55d1a2c4e000-7ffc5b5f4000 ---p 00000000 00:00 0                          [rollup]\n"
        b"Rss:                1800 kB\nPss_Anon:             97 kB\n"
    )
    assert {k: v.tolist() for k, v in rollup.columns.items()} == {
        "Rss": [1800 << 10], "Pss_Anon": [97 << 10],
    }


def test_a_zombies_smaps_is_empty() -> None:
    assert parse_smaps(b"").columns == {}


@pytest.mark.parametrize(
    "line",
    [b"1000-2000 rw-p 0 0:0 0", b"0000-1000 rw-p 0 0:0 0", b"Rss: 4 kB", b"Rss: -4 kB",
     b"Rss: 1_0 kB", b"Rss: 99999999999999999999 kB", b"nonsense", b""],
)
def test_an_impossible_line_of_smaps_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 3 of smaps"):
        parse_smaps(b"1000-2000 rw-p 0 0:0 0\nRss: 4 kB\n%b\n" % line)


@pytest.mark.parametrize("text", [b"1000-20", b"1000-2000 rw-p 0 0:0 0", RECORDED[:-1]])
def test_truncated_text_is_refused(text: bytes) -> None:
    with pytest.raises(BadText, match="of smaps"):
        parse_smaps(text)


def merged(first: list[bytes]) -> bytes:
    """Return ``first`` followed by a block that covers its last block and one page more."""
    low, _, rest = first[-1].partition(b"-")
    high, _, tail = rest.partition(b" ")
    larger = b"%b-%08x %b" % (low, int(high, 16) + 0x1000, tail)
    return b"".join([*first, larger])


@pytest.mark.parametrize("count", [3, 100])
def test_a_vma_that_was_merged_while_being_printed_counts_once(count: int) -> None:
    blocks = recorded(count)
    found, without = parse_smaps(merged(blocks)), parse_smaps(b"".join(blocks))
    assert found.start.tolist() == without.start.tolist()
    assert int(found.end[-1] - without.end[-1]) == 0x1000
    assert all((found.columns[name] == column).all() for name, column in without.columns.items())
    assert [found.codes[row] for row in found.which] == [
        without.codes[row] for row in without.which
    ]


# ---- all blocks together


def recorded(count: int) -> list[bytes]:
    """Return the blocks of a process with ``count`` VMAs, as Linux 6.18 writes them."""
    names = ("", "/usr/lib/libc.so.6", "[heap]", "/tmp/VmFlags: lo", "/tmp/4 kB", "/caf\xe9\r")
    amounts = ("Size", "KernelPageSize", "Rss", "Pss", "Private_Dirty", "Swap", "Locked")
    flags = (b"rd wr mr mw me ac ", b"rd mr mw me lo ", b"")
    draw = random.Random(count)
    blocks = []
    for row in range(count):
        at = 0x1000 * (3 * row + 1) << draw.choice((0, 28)) * (row > count // 2)
        head = b"%08x-%08x rw-p 00000000 fe:00 77  " % (at, at + 0x1000)
        body = b"".join(
            b"%-16s%8d kB\n" % (key.encode() + b":", draw.choice((0, 4, 132, 99999999)))
            for key in amounts
        )
        tail = b"THPeligible:%12d\nVmFlags: %b\n" % (draw.randint(0, 1), draw.choice(flags))
        blocks.append(head + draw.choice(names).encode("latin-1") + b"\n" + body + tail)
    return sorted(blocks, key=lambda block: int(block.partition(b"-")[0], 16))


def same(one: Smaps, other: Smaps) -> bool:
    return (
        one.columns.keys() == other.columns.keys()
        and all((one.columns[name] == other.columns[name]).all() for name in other.columns)
        and np.array_equal(one.start, other.start)
        and np.array_equal(one.end, other.end)
        and [one.codes[i] for i in one.which] == [other.codes[i] for i in other.which]
    )


def test_many_blocks_parsed_together_equal_those_parsed_line_by_line() -> None:
    text = b"".join(recorded(300))
    assert find_blocks(text) is not None
    found = parse_smaps(text)
    assert same(found, by_line(text))
    assert len(found.start) == 300
    assert set(found.columns["Rss"].tolist()) == {0, 4 << 10, 132 << 10, 99999999 << 10}


ODD = {
    # 16 TiB reserved: the number is wider than its field
    "wide": (b"\nSize:%19d kB" % 4, b"\nSize:           17179869184 kB"),
    "another line": (b"Locked:", b"Novel:                 4 kB\nLocked:"),
    "no VmFlags": (b"VmFlags: rd mr mw me lo \n", b""),
    "no amounts": (b"KernelPageSize:%9d kB\n" % 4, b""),
}


@pytest.mark.parametrize("how", ODD)
def test_a_block_unlike_the_others_is_read_line_by_line(how: str) -> None:
    blocks = recorded(200)
    row = next(i for i, block in enumerate(blocks) if i > 20 and ODD[how][0] in block)
    blocks[row] = blocks[row].replace(*ODD[how], 1)
    text = b"".join(blocks)
    found = parse_smaps(text)
    assert same(found, by_line(text))
    if how == "wide":
        assert found.columns["Size"][row] == 1 << 44


def outcome(parse: Callable[[bytes], Smaps], text: bytes) -> Smaps | str:
    try:
        return parse(text)
    except BadText as err:
        return str(err)


def test_broken_text_is_refused_in_the_same_way_together_and_line_by_line() -> None:
    draw = random.Random(11)
    whole = b"".join(recorded(FEW + 8))
    refused = 0
    for _ in range(1500):
        text = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text))
            kind = draw.randrange(4)
            if kind == 0:
                text[at] = draw.choice(b"\n 0aZ:-9k\r\xff")
            elif kind == 1:
                del text[at : at + draw.randint(1, 40)]
            elif kind == 2:
                text[at:at] = text[at : at + draw.randint(1, 400)]
            else:
                del text[at:]
        one = outcome(parse_smaps, bytes(text))
        other = outcome(lambda text: without_repeats(by_line(text)), bytes(text))
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
            refused += 1
        else:
            assert same(one, other), bytes(text)
    assert refused > 100
