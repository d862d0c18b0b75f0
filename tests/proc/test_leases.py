"""Leases on files, taken for real. That none is broken: tests/proc/test_page_cache.py."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from pagewalk.proc.leases import leased


@pytest.mark.parametrize(("kind", "mode", "found"), [
    (fcntl.F_WRLCK, "rb+", True), (fcntl.F_RDLCK, "rb", False), (None, "rb+", False)])
def test_only_a_lease_that_opening_breaks_counts(
    tmp_path: Path, kind: int | None, mode: str, found: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open(mode) as file:
        if kind is not None:
            fcntl.fcntl(file, fcntl.F_SETLEASE, kind)
        assert leased(path.stat()) == found
    assert not leased(path.stat())
