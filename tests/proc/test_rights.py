"""What this process may do, as read from /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.proc import rights
from pagewalk.proc.rights import Rights, is_initial, read_rights

IDENTITY = b"         0          0 4294967295\n"
MOUNTS = (
    "22 27 0:20 / /proc rw,nosuid shared:12 - proc proc rw{}\n"
    "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
)
PERFMON, BPF = 1 << 38, 1 << 39  # include/uapi/linux/capability.h


@pytest.mark.parametrize(
    ("uid_map", "initial"),
    [(IDENTITY, True), (b"0 1000 1\n", False), (b"0 0 65536\n", False), (b"", False)],
)
def test_the_initial_user_namespace_maps_every_uid_to_itself(uid_map: bytes, initial: bool) -> None:
    assert is_initial(uid_map) is initial


@pytest.mark.parametrize(
    ("options", "hides"),
    [("", False), (",hidepid=invisible", True), (",hidepid=noaccess", False), (",hidepid=2", True)],
)
def test_whether_proc_hides_processes_is_read_from_its_mount_options(
    monkeypatch: pytest.MonkeyPatch, options: str, hides: bool
) -> None:
    monkeypatch.setattr(rights, "read_bytes", lambda path: MOUNTS.format(options).encode())
    assert rights.hides_processes() is hides


def test_rights_are_read_from_proc_and_sys(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/kernel/security").mkdir(parents=True)
    status = "Name:\tx: y\nSeccomp:\t2\nSeccomp_filters:\t1\nCapEff:\t000000c000000000\n"
    (tmp_path / "proc/self/status").write_text(status)
    (tmp_path / "proc/self/uid_map").write_bytes(IDENTITY)
    lockdown = "none integrity [confidentiality]\n"
    (tmp_path / "sys/kernel/security/lockdown").write_text(lockdown)
    rights = read_rights(str(tmp_path))
    assert rights == Rights(2, "confidentiality", IDENTITY, BPF | PERFMON)
