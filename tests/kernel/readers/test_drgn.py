"""drgn as the reader, on a program whose memory is a segment of a file."""

from __future__ import annotations

import errno
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.readers.drgn import DrgnMemory, open_drgn
from pagewalk.kernel.readers.memory import read_bytes, read_pages, read_structs, read_words
from pagewalk.model.errors import SourceUnavailable

HIGH = 0xFFFFEA0000000000
DATA = np.random.default_rng(2).bytes(2 * 4096)


@pytest.fixture
def memory() -> DrgnMemory:
    drgn = pytest.importorskip("drgn", reason="drgn is an optional extra")
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return DATA[offset : offset + count]

    program.add_memory_segment(HIGH, len(DATA), read, False)
    return DrgnMemory(program)


def test_it_reads_like_every_other_reader(memory: DrgnMemory) -> None:
    assert read_bytes(memory, HIGH + 3, 5000) == DATA[3:5003]
    pages, errors = read_pages(memory, np.array([HIGH + 4096, HIGH], np.uint64))
    assert pages[0].tobytes() == DATA[4096:]
    assert pages[1].tobytes() == DATA[:4096]
    assert not errors.any()
    rows, errors = read_structs(memory, np.array([HIGH + 64, HIGH, HIGH + 320], np.uint64), 64)
    assert rows[2].tobytes() == DATA[320:384]
    assert not errors.any()


def test_a_fault_is_an_errno(memory: DrgnMemory) -> None:
    words, errors = read_words(memory, np.array([HIGH, 0x1000, HIGH + 8], np.uint64))
    assert errors.tolist() == [0, errno.EFAULT, 0]
    assert words[2].tobytes() == DATA[8:16]
    with pytest.raises(OSError, match="0x1000"):
        memory.read(0x1000, 8)


def test_without_drgn_the_advice_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    with pytest.raises(SourceUnavailable, match=r"source 'drgn' .*drgn is not") as caught:
        open_drgn()
    # pagewalk itself is not in an index: 'pip install pagewalk[kcore]' would fail.
    assert caught.value.remedy == f"{sys.executable} -m pip install drgn"


@pytest.mark.skipif(not importlib.util.find_spec("drgn"), reason="drgn is an optional extra")
def test_a_missing_core_file_is_one_sentence() -> None:
    with pytest.raises(SourceUnavailable, match="drgn cannot open /etc/passwd") as caught:
        open_drgn("/etc/passwd")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not importlib.util.find_spec("drgn"), reason="drgn is an optional extra")
@pytest.mark.skipif(Path("/proc/kcore").exists(), reason="this kernel has /proc/kcore")
def test_the_error_about_kcore_names_drgn() -> None:
    with pytest.raises(SourceUnavailable, match=r"source 'drgn' .*/proc/kcore does not exist"):
        open_drgn()
