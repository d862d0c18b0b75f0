"""The address space of a recording made by hand: what is read is what was written, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagewalk.model.columns import State, Tells
from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.runs import ANEW
from pagewalk.snapshot.write import Labels, Writer, whole_file
from pagewalk.sources import recorded_space
from pagewalk.sources.recorded_space import RecordedSpace, read_vmas
from pagewalk.sources.space import Origin
from tests.snapshot.by_hand import FACTS, META, PAGE

TELLS = Tells(tables=True, huge=True, zeros=True, frames=True, young=True, ksm=True)
HIGH = 1 << 63  # an address of the kernel's half, negative in the file
AREAS: dict[str, Any] = {
    "pid": [5, 5], "vma": [0, 1], "start": np.array([PAGE, HIGH], np.uint64),
    "end": np.array([9 * PAGE, HIGH + PAGE], np.uint64), "perms": [3, 5], "offset": [0, PAGE],
    "dev": [0, 8 << 32 | 1], "inode": [0, 77], "backing": [0, 1], "name": [None, "/lib/x"]}
ROWS: dict[str, Any] = {
    "pid": [5, 5, 5], "vma": [0, 0, 1], "start": np.array([PAGE, 4 * PAGE, HIGH], np.uint64),
    "size": [2 * PAGE, PAGE, PAGE], "unit": [PAGE] * 3, "level": [0, 0, 0], "flags": [1, 512, 1],
    "frame": [40, 41, 7], "step": [1, 32, 1], "kflags": [0] * 3, "mapcount": [1, 0, 3]}
STATES = ("anon", "swapped", "file")


def space(
    path: Path, *, areas: dict[str, Any] | None = None, rows: dict[str, Any] | None = None,
    states: tuple[str, ...] = STATES, physical: bool = True,
) -> RecordedSpace:
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("process", {"pid": [5], "mm": [5]})
        writer.add("vma", AREAS | (areas or {}))
        writer.add("page", ROWS | {"state": Labels(np.arange(3), states)} | (rows or {}))
        writer.close(META._replace(physical=physical), FACTS)
    recording = Recording(str(path))
    vmas, _ = read_vmas(recording, 5)
    return RecordedSpace(recording, 5, FACTS, TELLS, vmas)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = space(tmp_path / "a")
    assert found.origin == Origin(META.host, META.time)
    assert found.its_vmas.start.tolist() == [PAGE, HIGH] and found.its_vmas.name == ("", "/lib/x")
    (runs,) = found.runs()
    assert runs.addr.tolist() == [PAGE, 4 * PAGE, HIGH]
    assert runs.state.tolist() == [State.ANON.value, State.SWAPPED.value, State.FILE.value]
    assert runs.pfn is not None and runs.pfn.tolist() == [40, 41, 7]


def test_frames_that_are_numbered_anew_are_marked_but_for_swap(tmp_path: Path) -> None:
    (runs,) = space(tmp_path / "a", physical=False).runs()
    assert runs.pfn is not None and runs.pfn.tolist() == [40 | ANEW, 41, 7 | ANEW]


def test_a_process_without_vmas_is_told(tmp_path: Path) -> None:
    vmas, more = read_vmas(space(tmp_path / "a").recording, 6)
    assert len(vmas) == 0 and not more


@pytest.mark.parametrize("changed", [
    {"start": np.array([PAGE, 4 * PAGE], np.uint64)},  # in the one before
    {"start": np.array([PAGE + 1, HIGH], np.uint64)},
    {"end": np.array([PAGE, HIGH + PAGE], np.uint64)},
    {"backing": [0, 8]},
])
def test_vmas_that_cannot_be_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="the VMAs of process 5 are out of order"):
        space(tmp_path / "a", areas=changed)


def test_vmas_that_lack_a_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="the VMAs of process 5 have no inode"):
        space(tmp_path / "a", areas={"inode": [None, None]})


@pytest.mark.parametrize("changed", [
    {"start": np.array([0, 4 * PAGE, HIGH], np.uint64)},  # before its VMA
    {"start": np.array([PAGE, 2 * PAGE, HIGH], np.uint64)},  # in the run before
    {"start": np.array([PAGE, 4 * PAGE, HIGH + PAGE], np.uint64)},  # behind its VMA
    {"vma": [0, 0, 2]}, {"vma": [0, -1, 1]}, {"size": [2 * PAGE, 0, PAGE]},
    {"size": [2 * PAGE, -PAGE, PAGE]}, {"size": [2 * PAGE + 1, PAGE, PAGE]},
    {"unit": [PAGE, 0, PAGE]}, {"unit": [PAGE, 5, PAGE]},
])
def test_pages_that_cannot_be_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="a page of process 5 is where none can be"):
        list(space(tmp_path / "a", rows=changed).runs())


def test_a_state_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="pages in an unknown state, 'asleep'"):
        list(space(tmp_path / "a", states=("anon", "asleep", "file")).runs())


def test_more_pages_than_any_ram_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_space, "MOST_PAGES", 3)
    with pytest.raises(BadRecording, match="process 5 has more pages than any RAM"):
        list(space(tmp_path / "a").runs())
