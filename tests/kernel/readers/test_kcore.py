"""/proc/kcore as a reader, on core files built by hand."""

from __future__ import annotations

import errno
import os
import re
import struct
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.readers.kcore import KcoreMemory, parse_vmcoreinfo
from pagewalk.kernel.readers.memory import read_pages, read_word
from pagewalk.model.errors import SourceUnavailable
from tests.kernel.core_file import HIGH, HIGH_DATA, INFO, LOW, LOW_DATA, core, note


def test_segments_are_sorted(memory: KcoreMemory) -> None:
    assert memory.segments.start.tolist() == [LOW, HIGH]
    assert memory.segments.end.tolist() == [LOW + len(LOW_DATA), HIGH + len(HIGH_DATA)]


def test_vmcoreinfo(memory: KcoreMemory) -> None:
    assert memory.vmcoreinfo == {"OSRELEASE": "6.1.0", "NUMBER(pgtable_l5_enabled)": "1"}
    assert parse_vmcoreinfo(b"") == {}
    assert parse_vmcoreinfo(note(b"CORE", b"x" * 13)) == {}


def test_a_truncated_file_is_an_io_error_and_not_zeros(tmp_path: Path) -> None:
    whole = core([(HIGH, HIGH_DATA)])
    (tmp_path / "core").write_bytes(whole[:-4096])
    with closing(KcoreMemory(str(tmp_path / "core"))) as memory:
        _, errors = read_pages(memory, np.array([HIGH, HIGH + 8192], np.uint64))
        assert errors.tolist() == [0, errno.EIO]
        with pytest.raises(OSError, match="cannot be read"):
            read_word(memory, HIGH + 8192)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a 64-bit little-endian ELF"),
        (b"\x7fELF\x01\x01" + bytes(100), "not a 64-bit little-endian ELF"),
        (core([]), "no memory"),
        (core([(HIGH, HIGH_DATA)])[:80], "truncated"),
    ],
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "core").write_bytes(content)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SourceUnavailable, match=why):
        KcoreMemory(str(tmp_path / "core"))
    assert os.listdir("/proc/self/fd") == before


def test_a_kcore_that_a_container_hides_is_told_as_such() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SourceUnavailable, match=r"mount /dev/null .* run on the host"):
        KcoreMemory("/dev/null")
    assert os.listdir("/proc/self/fd") == before


BIG = [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


def patched(place: int, value: int) -> bytes:
    """Return a core file with one u64 changed."""
    whole = bytearray(core([(HIGH, HIGH_DATA)], note(b"VMCOREINFO", INFO)))
    struct.pack_into("<Q", whole, place, value)
    return bytes(whole)


# Offset, address, size in the file and in memory in each program header (elf(5), Elf64_Phdr), and
# the offset of the headers.
@pytest.mark.parametrize("value", BIG)
@pytest.mark.parametrize("place", [32, 72, 80, 96, 104, 128, 136, 152, 160])
def test_impossible_sizes_are_refused_or_left_out(
    tmp_path: Path, place: int, value: int
) -> None:
    (tmp_path / "core").write_bytes(patched(place, value))
    before = os.listdir("/proc/self/fd")
    try:
        memory = KcoreMemory(str(tmp_path / "core"))
    except SourceUnavailable as error:
        assert re.search(r"beyond 64 bits|no memory|program headers", str(error))
    else:
        # Any address it accepts as memory is read from the file, or is an error.
        for address in (HIGH, value, *memory.segments.start.tolist()):
            with suppress(OSError):
                read_word(memory, address)
        memory.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_kcore_is_one_sentence() -> None:
    with pytest.raises(SourceUnavailable, match=r"^source 'kcore' .*CONFIG_PROC_KCORE") as caught:
        KcoreMemory("/nonexistent/kcore")
    assert "\n" not in str(caught.value)


def test_closing_twice_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(core([(HIGH, HIGH_DATA)]))
    memory = KcoreMemory(str(tmp_path / "core"))
    memory.close()
    memory.close()
