"""What a refused trigger means; tests/live/test_armed.py has real ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pagewalk.model.errors import BadText, NotPermitted, SourceUnavailable
from pagewalk.proc.pressure import WINDOWS, refused, waited, watch_pressure


@pytest.mark.parametrize(("code", "kind", "says"), [
    (errno.EACCES, NotPermitted, "cannot watch memory.pressure: permission denied; run as root"),
    (errno.EOPNOTSUPP, SourceUnavailable, "this kernel does not measure it"),
    (errno.EINVAL, SourceUnavailable, "accepts no window"),
])  # fmt: skip
def test_a_refusal_says_what_to_do(code: int, kind: type[Exception], says: str) -> None:
    found = refused(OSError(code, os.strerror(code)), "memory.pressure")
    assert isinstance(found, kind) and says in str(found)


def test_a_group_that_is_gone_is_no_matter_of_pressure() -> None:
    error = OSError(errno.ENODEV, "gone")
    assert refused(error, "memory.pressure") is error


def test_no_file_of_pressure(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="CONFIG_PSI"):
        watch_pressure(0.1, str(tmp_path / "memory"))


def test_the_share_is_of_the_window(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.touch()
    fd, window = watch_pressure(0.15, "memory", group := os.open(tmp_path, os.O_RDONLY))
    assert window == WINDOWS[0]
    assert file.read_bytes() == b"some %d %d\0" % (0.15 * WINDOWS[0], WINDOWS[0])
    os.close(fd)
    os.close(group)


def test_the_total_is_that_of_some_and_never_a_guess(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=70\nfull total=9\n")
    fd = os.open(file, os.O_RDONLY)
    assert waited(fd) == 70
    file.write_text("full total=9\n")
    with pytest.raises(BadText):
        waited(fd)
    os.close(fd)
