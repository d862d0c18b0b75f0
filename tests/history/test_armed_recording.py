"""What is read of a recording that an armed recorder made, written by hand."""

from __future__ import annotations

from pathlib import Path

from pagewalk.history.armed_recording import SharedFile, read_armed
from pagewalk.history.trigger import DOCUMENT
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.schema import Meta
from pagewalk.snapshot.write import Writer, whole_file
from tests.armed_by_hand import MIB, TRIGGER
from tests.snapshot.by_hand import FACTS, META


def armed(path: Path, reason: str = TRIGGER.reason) -> str:
    """Write a recording of two processes that map the same file, and one that had ended."""
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("document", {"name": [DOCUMENT], "text": [to_text(TRIGGER)]})
        writer.add("process", {"pid": [7, 8], "mm": [7, 8], "name": ["shop", "web"]})
        writer.add("vma", {
            "pid": [7, 7, 8, 8, 8, 9], "vma": [0, 1, 0, 1, 2, 0], "dev": [1, 1, 1, 1, 5, 1],
            "inode": [5, 5, 5, 6, 5, 5], "name": ["/a", "/a", "/a", "/b", "/c", "/a"],
            "shmem": [2 * MIB, MIB, 4 * MIB, None, MIB, 9 * MIB]})
        meta: Meta = META._replace(reason=reason)
        writer.close(meta, FACTS)
    return str(path)


def test_each_file_is_told_by_who_has_most_of_it(tmp_path: Path) -> None:
    found = read_armed(armed(tmp_path / "a.pagewalk"))
    assert found is not None and found.trigger == TRIGGER and found.recorded == (7, 8)
    assert found.shared == (SharedFile("/a", 8, "web", 4 * MIB), SharedFile("/c", 8, "web", MIB))
    assert found.refused == () and found.withheld == []


def test_a_recording_that_somebody_asked_for_is_another(tmp_path: Path) -> None:
    assert read_armed(armed(tmp_path / "a.pagewalk", "")) is None
