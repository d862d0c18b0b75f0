"""mountinfo, on recorded lines and on mount points with any name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.mounts import parse_mounts
from tests.proc.test_maps import ODD

PROC = b"22 1 0:20 / /proc rw,nosuid shared:5 master:1 - proc proc rw,hidepid=2\n"


def test_a_line_has_an_id_a_device_a_place_a_type_and_options() -> None:
    (mount,) = parse_mounts(PROC)
    assert mount == (22, 20, b"/proc", b"proc", [b"rw", b"hidepid=2"], b"/", 1)


def test_a_source_may_be_empty() -> None:
    (mount,) = parse_mounts(b"22 1 0:20 / /mnt rw - tmpfs  rw,size=4k\n")
    assert (mount.kind, mount.options) == (b"tmpfs", [b"rw", b"size=4k"])


# seq_path_root and mangle (fs/proc_namespace.c) escape these four, and nothing else.
@pytest.mark.parametrize("odd", [o for o in ODD if o not in (b" ", b"\t", b"\\")], ids=bytes.hex)
def test_a_mount_point_keeps_every_byte(odd: bytes) -> None:
    point = b"/tmp/a%bb%b" % (odd, odd)
    mounts = parse_mounts(b"30 22 0:31 %b %b rw - tmpfs %b rw\n" % (point, point, point) + PROC)
    assert [mount.point for mount in mounts] == [point, b"/proc"]
    assert [mount.kind for mount in mounts] == [b"tmpfs", b"proc"]


@pytest.mark.parametrize("line", [b"\n", b"22 1 0:20 / /proc rw proc proc rw\n", PROC[:-1]])
def test_an_invalid_line_of_mountinfo_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 2 of mountinfo"):
        parse_mounts(PROC + line)


def test_our_own_mounts_are_read() -> None:
    text = Path("/proc/self/mountinfo").read_bytes()
    assert len(parse_mounts(text)) == text.count(b"\n")
