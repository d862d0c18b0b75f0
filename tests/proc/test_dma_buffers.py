"""DMA buffers, in text written by hand and in sysfs's directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import dma_buffers
from pagewalk.proc.dma_buffers import DmaBuffer, parse_bufinfo, read_dma_buffers
from tests.samples import BUFINFO

BUFFERS = [DmaBuffer(7, 4096, "udmabuf", ""), DmaBuffer(12, 8294400, "i915", "a b\x1b[1m")]


def test_a_buffer_has_a_size_an_exporter_and_perhaps_a_name() -> None:
    assert parse_bufinfo(BUFINFO) == BUFFERS


def test_a_newline_in_a_name_makes_no_other_buffer() -> None:
    # the longest that a process may choose (DMA_BUF_NAME_LEN)
    name = b"\nTotal 1 objects, 4096 bytes\n"
    assert len(name) < 32
    found = parse_bufinfo(BUFINFO.replace(b"a b\x1b[1m", name))
    assert found == [BUFFERS[0], BUFFERS[1]._replace(name="")]


def test_no_buffer_is_an_empty_list() -> None:
    head = b"\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n"
    assert parse_bufinfo(head + b"\nTotal 0 objects, 0 bytes\n") == []


@pytest.mark.parametrize(
    "text",
    [b"", BUFINFO[:-1], BUFINFO.replace(b"00004096\t", b"4096\t"),
     BUFINFO.replace(b"Total 2 objects", b"Total 3 objects"), BUFINFO.replace(b"8298496", b"1")],
)
def test_what_does_not_add_up_is_refused(text: bytes) -> None:
    with pytest.raises(BadText, match="bufinfo"):
        parse_bufinfo(text)


def test_sysfs_has_a_directory_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for inode, size in (("7", "4096\n"), ("9", "")):  # the second is being freed
        (tmp_path / inode).mkdir()
        (tmp_path / inode / "size").write_text(size)
        (tmp_path / inode / "exporter_name").write_text("system\n")
    monkeypatch.setattr(dma_buffers, "SYSFS", str(tmp_path))
    assert read_dma_buffers() == [DmaBuffer(7, 4096, "system", "")]


def test_without_either_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dma_buffers, "SYSFS", "/no/sysfs")
    monkeypatch.setattr(dma_buffers, "DEBUGFS", "/no/debugfs")
    with pytest.raises(SourceUnavailable, match="neither /no/sysfs nor /no/debugfs is there"):
        read_dma_buffers()
