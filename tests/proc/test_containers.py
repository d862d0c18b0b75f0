"""Folders of state files: which are read, which are refused, and whose they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc import state_files
from pagewalk.proc.containers import LARGEST, cgroup_of, read_records
from tests.proc.test_engines import DOCKER, RUNC, A, B, written
from tests.proc.test_podman import bolt_pods, database

# ---- folders


def put(root: Path, path: str, data: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_a_machine_without_engines_has_no_records(tmp_path: Path) -> None:
    found = read_records(str(tmp_path))
    assert found.rows == () and found.missing == ()


def test_every_place_is_read(tmp_path: Path) -> None:
    put(tmp_path, f"var/lib/docker/containers/{A}/config.v2.json", written(DOCKER))
    put(tmp_path, "run/runc/web/state.json", written(RUNC))
    put(tmp_path, "run/containerd/runc/k8s.io/task/state.json", written(RUNC))
    put(tmp_path, "run/user/1000/crun/own/status", b"{}")
    put(tmp_path, "run/containerd/io.containerd.runtime.v2.task/default/db/config.json", b"{}")
    put(tmp_path, "var/lib/containers/storage/overlay-containers/containers.json",
        written([{"id": B, "names": ["till"]}]))
    put(tmp_path, "home/alice/.local/share/containers/storage/vfs-containers/containers.json",
        written([{"id": "ef" * 32, "names": ["hers"]}]))
    put(tmp_path, "var/lib/containers/storage/db.sql", database((B, "shop")))
    found = read_records(str(tmp_path))
    assert found.missing == ()
    assert [(row.engine, row.name or row.pod) for row in found.rows] == [
        ("docker", "web-1"), ("podman", "till"), ("podman", "shop"), ("podman", ""),
        ("podman", "hers"),
        ("containerd", "db"), ("runc", "web"), ("runc", "task"), ("crun", "own"),
    ]
    assert found.rows[0].where == f"{tmp_path}/var/lib/docker/containers/{A}/config.v2.json"


def test_an_engine_may_have_been_told_another_folder(tmp_path: Path) -> None:
    put(tmp_path, "etc/docker/daemon.json", written({"data-root": "/srv/docker/"}))
    put(tmp_path, "etc/containers/storage.conf",
        b'[storage]\ndriver = "overlay"\ngraphroot = "/srv/images"\n')
    put(tmp_path, f"srv/docker/containers/{A}/config.v2.json", written(DOCKER))
    put(tmp_path, "srv/images/overlay-containers/containers.json",
        written([{"id": B, "names": ["till"]}]))
    put(tmp_path, "srv/images/libpod/bolt_state.db", bolt_pods())
    found = read_records(str(tmp_path))
    assert found.missing == ()
    names = {row.name or row.pod for row in found.rows}
    assert names - {""} == {"depot", "shop", "till", "web-1"}


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b'{"data-root": 7}', b"=", b"[storage]\n",
                                    b'{"data-root": "srv"}', b"[storage]\ngraphroot = 7\n",
                                    b'{"data-root": "/*"}', b"\xff", b"a = " + b"[" * 10_000])
def test_a_configuration_that_tells_no_folder_changes_nothing(
    config: bytes, tmp_path: Path
) -> None:
    put(tmp_path, "etc/docker/daemon.json", config)
    put(tmp_path, "etc/containers/storage.conf", config)
    put(tmp_path, f"var/lib/docker/containers/{A}/config.v2.json", written(DOCKER))
    found = read_records(str(tmp_path))
    assert [row.name for row in found.rows] == ["web-1"] and found.missing == ()


def test_what_is_no_plain_file_of_a_bounded_size_is_not_read(tmp_path: Path) -> None:
    outside = put(tmp_path, "secret", written(RUNC))
    for name in ("link", "fifo", "folder", "large"):
        (tmp_path / "run/runc" / name).mkdir(parents=True)
    (tmp_path / "run/runc/link/state.json").symlink_to(outside)
    os.mkfifo(tmp_path / "run/runc/fifo/state.json")
    (tmp_path / "run/runc/folder/state.json").mkdir()
    put(tmp_path, "run/runc/large/state.json", b" " * (LARGEST + 1))
    put(tmp_path, "run/runc/good/state.json", written(RUNC))
    (tmp_path / "run/runc/away").symlink_to(tmp_path / "run/runc/good")
    found = read_records(str(tmp_path))
    assert [row.id for row in found.rows] == ["good"]
    (said,) = found.missing
    assert said.startswith(f"cannot read {tmp_path}/run/runc/")
    assert said.endswith(", and 3 more of that kind")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda file: file.symlink_to("/etc/passwd"), "it is a link"),
        (os.mkfifo, "it is not a plain file"),
        (Path.mkdir, "is a directory"),
        (lambda file: file.write_bytes(b" " * (LARGEST + 1)), "it is larger than 3 MiB"),
        (lambda file: file.write_bytes(b"{"), "it is not JSON"),
        (lambda file: file.write_bytes(b"[]"), "it is not a JSON object"),
    ],
)
def test_the_reason_is_told(make: Any, why: str, tmp_path: Path) -> None:
    (tmp_path / "run/runc/web").mkdir(parents=True)
    file = tmp_path / "run/runc/web/state.json"
    make(file)
    assert read_records(str(tmp_path)).missing == (f"cannot read {file}: {why}",)


def test_the_engines_own_folder_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path, f"data/containers/{A}/config.v2.json", written(DOCKER))
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/docker").symlink_to(tmp_path / "data")
    assert [row.name for row in read_records(str(tmp_path)).rows] == ["web-1"]


def test_more_containers_than_are_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_files, "MOST", 2)
    for name in "abc":
        put(tmp_path, f"run/runc/{name}/state.json", b"{}")
    found = read_records(str(tmp_path))
    assert len(found.rows) == 2
    assert found.missing == (
        f"cannot read all of {tmp_path}/run/runc: it has more than 2 entries",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_a_user_are_marked(tmp_path: Path) -> None:
    os.chown(put(tmp_path, "run/user/1000/crun/own/status", b"{}"), 1000, 1000)
    put(tmp_path, "run/crun/roots/status", b"{}")
    assert [(row.id, row.owner) for row in read_records(str(tmp_path)).rows] == [
        ("roots", None), ("own", 1000)]


def test_a_pid_is_believed_only_if_its_cgroup_has_the_id(tmp_path: Path) -> None:
    state = DOCKER | {"State": {"Running": True, "Pid": os.getpid()}}
    put(tmp_path, f"var/lib/docker/containers/{A}/config.v2.json", written(state))
    assert [row.cgroup for row in read_records(str(tmp_path)).rows] == [""]


def test_the_cgroup_of_a_process_is_that_of_its_memory() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    told = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    assert cgroup_of(os.getpid()) == told.get("memory", told.get(""))
    assert cgroup_of(1 << 30) == ""
