"""All of RAM from files of words, as /proc/kpageflags, kpagecount and kpagecgroup are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from pagewalk.model.bits import KPF, kpf
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.frames import FLAGS, Frames, Kind
from pagewalk.proc import frames, kpage_scan
from pagewalk.proc.kpage_scan import scan_kpage

HELD = ExitStack()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test opened."""
    with HELD:
        yield


def written(path: Path, words: list[int]) -> int:
    path.write_bytes(np.array(words, np.uint64).tobytes())
    file = HELD.enter_context(path.open("rb"))
    return file.fileno()


def scan(
    path: Path, flags: list[int], counts: list[int], owners: list[int] | None = None,
    first: int = 0, last: int | None = None, ksm: bool = True,
) -> Frames:  # fmt: skip
    """Return the runs of frames [first, last) of files with these words."""
    opened = frames.Frames(
        written(path / "flags", flags), written(path / "counts", counts), ksm=ksm
    )
    owner = None if owners is None else written(path / "owners", owners)
    return kpage_scan._read(opened, owner, first, len(flags) if last is None else last)


def kind_of(word: int) -> Kind:
    """Return what a frame is, read off the names of its bits."""
    has = {name for name, bit in KPF.items() if word >> bit & 1}
    for name, kind in (("nopage", Kind.UNKNOWN), ("reserved", Kind.RESERVED),
                       ("offline", Kind.OFFLINE), ("pgtable", Kind.PAGE_TABLE),
                       ("slab", Kind.SLAB), ("buddy", Kind.BUDDY), ("huge", Kind.HUGETLB),
                       ("ksm", Kind.KSM), ("anon", Kind.ANON), ("swapcache", Kind.SWAP_CACHE)):
        if name in has:
            return kind
    if "lru" not in has:
        return Kind.KERNEL
    return Kind.SHMEM if "swapbacked" in has else Kind.FILE


def test_kinds(tmp_path: Path) -> None:
    names = [name for name in KPF if name not in ("head", "tail")]
    single = [1 << KPF[name] for name in names]
    words = [0, *single, *(a | b for a in single for b in single)]
    found = scan(tmp_path, words, [0] * len(words))
    kinds = np.repeat(found.kind, found.pages).tolist()
    assert kinds == [kind_of(word).value for word in words]


def test_runs_are_of_frames_that_are_alike(tmp_path: Path) -> None:
    anon, file = int(kpf("lru", "anon", "uptodate")), int(kpf("lru", "referenced"))
    flags = [anon, anon, anon, file, file, file, 0]
    found = scan(tmp_path, flags, [1, 1, 2, 2, 2, 2, 0], [7, 7, 7, 7, 8, 8, 0])
    assert found.pfn.tolist() == [0, 2, 3, 4, 6]
    assert found.pages.tolist() == [2, 1, 1, 2, 1]
    assert found.mapcount.tolist() == [1, 2, 2, 2, 0]
    assert found.owner is not None
    assert found.owner.tolist() == [7, 7, 7, 8, 0]
    assert (found.flags & ~FLAGS == 0).all()
    assert found.object is found.facts is found.counts is None


def test_without_kpagecgroup_nobody_is_named(tmp_path: Path) -> None:
    assert scan(tmp_path, [0, 0], [0, 0]).owner is None


def test_tails_have_what_is_told_of_their_head_only(tmp_path: Path) -> None:
    # Up to 6.9 a tail's word lacks swapbacked, up to 6.1 its owner.
    head, tail = int(kpf("head", "lru", "swapbacked", "dirty")), int(kpf("tail", "lru"))
    found = scan(tmp_path, [head, tail, tail, tail], [0, 0, 0, 0], [9, 0, 0, 0])
    assert (found.kind.tolist(), found.pages.tolist()) == ([Kind.SHMEM.value], [4])
    assert found.owner is not None
    assert found.owner.tolist() == [9]
    inside = scan(tmp_path, [head, tail, tail, tail], [0, 0, 0, 0], None, 2, 4)
    assert (inside.kind.tolist(), inside.pages.tolist()) == ([Kind.SHMEM.value], [2])


def test_free_frames_have_no_count(tmp_path: Path) -> None:
    # They are not asked for: a frame that was taken meanwhile is still free here, and unmapped.
    found = scan(tmp_path, [int(kpf("buddy"))] * 3, [1, 1, 1], [5, 5, 5])
    assert found.owner is not None
    assert (found.mapcount.tolist(), found.owner.tolist()) == ([0], [0])


def test_a_ksm_bit_that_means_nothing_is_no_kind(tmp_path: Path) -> None:
    words = [int(kpf("anon", "ksm", "lru"))]
    assert scan(tmp_path, words, [2]).kind.tolist() == [Kind.KSM.value]
    assert scan(tmp_path, words, [2], ksm=False).kind.tolist() == [Kind.ANON.value]


def test_frames_behind_the_end_are_unknown(tmp_path: Path) -> None:
    found = scan(tmp_path, [0, 0], [0, 0], None, 0, 5)
    assert found.pages.tolist() == [2, 3]
    assert found.kind.tolist() == [Kind.KERNEL.value, Kind.UNKNOWN.value]


def test_without_rights_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> frames.Frames:
        raise PermissionError(13, "Permission denied", "/proc/kpageflags")

    monkeypatch.setattr(kpage_scan, "open_frames", refused)
    with pytest.raises(SourceUnavailable, match="kpageflags: Permission denied"):
        next(scan_kpage([(0, 1)]))
