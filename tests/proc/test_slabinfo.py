"""/proc/slabinfo, on lines written by hand and on this machine."""

from __future__ import annotations

import os

import pytest

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import slabinfo
from pagewalk.proc.slabinfo import SlabCache, parse_slabinfo, read_slabinfo
from tests.samples import SLABINFO

PAGE = 4096


def test_a_cache_has_its_objects_and_its_slabs() -> None:
    dentry, odd = parse_slabinfo(SLABINFO)
    assert dentry == SlabCache(
        name="dentry", active=104600, objects=104622, size=192, per_slab=21, pages_per_slab=1,
        active_slabs=4981, slabs=4982,
    )
    assert (odd.name, odd.slabs, odd.pages_per_slab) == ("a module's cache\xa0", 2, 8)
    assert odd.most == 2 * 8 * PAGE


def test_no_cache_is_an_empty_list() -> None:
    assert parse_slabinfo(SLABINFO[: SLABINFO.index(b"dentry")]) == []


@pytest.mark.parametrize(
    "line", [b"\n", b"dentry 1 2 3 4 5\n", b"dentry -1 1 1 1 1 : tunables 0 0 0 : slabdata 1 1 0\n",
             b"dentry 1 1 1 1 1 : tunables 0 0 0 : slabdata 1 1 0"],
)
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 5 of slabinfo"):
        parse_slabinfo(SLABINFO + line)


def test_rights_or_a_kernel_without_it_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabinfo, "PATH", "/proc/no/slabinfo")
    with pytest.raises(SourceUnavailable, match="No such file or directory; use a kernel built"):
        read_slabinfo()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read it")
def test_others_may_not_read_it() -> None:
    with pytest.raises(SourceUnavailable, match="Permission denied; run as root"):
        read_slabinfo()
