"""mountinfo, on recorded lines and on mount points with any name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.mounts import answered_elsewhere, parse_mounts, real_path
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


def mountinfo(root: Path, *lines: bytes) -> str:
    (root / "self").mkdir()
    (root / "self/mountinfo").write_bytes(b"".join(b"30 22 0:31 / %b\n" % line for line in lines))
    return str(root)


def test_networks_and_programs_may_never_answer(tmp_path: Path) -> None:
    proc = mountinfo(
        tmp_path, b"/ rw - nfs4 a:/ rw", b"/home rw - autofs auto rw",
        b"/a\\040b rw - fuse.sshfs x rw",
        b"/data rw - ext4 /dev/sda rw", b"/hidden rw - nfs a:/b rw", b"/hidden rw - tmpfs none rw",
        b"/fusectl rw - fusectl none rw",
    )
    assert answered_elsewhere(proc) == {"/home": "autofs", "/a b": "fuse.sshfs"}
    assert answered_elsewhere(f"{tmp_path}/nothing") == {}


def test_links_are_followed_without_a_look_below_a_mount_point(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    for link, target in (("rel", "a/b"), ("abs", f"{base}/a"), ("up", "a/../abs/b"),
                         ("loop", "loop"), ("far", "a/b/c/d")):
        (tmp_path / link).symlink_to(target)
    for name in ("rel", "abs/b", "up/..", "a//./b/", "none/x", "abs/../rel"):
        assert real_path(f"{base}/{name}", ()) == (os.path.realpath(f"{base}/{name}"), "")
    assert real_path("/", ()) == real_path("/..", ()) == ("/", "")
    assert real_path(f"{base}/loop", ())[1] == ""
    apart = {f"{base}/a/b": "nfs"}
    assert real_path(f"{base}/far/e", apart) == (f"{base}/a/b/c/d/e", f"{base}/a/b")
    assert real_path(f"{base}/a", apart) == (f"{base}/a", "")
