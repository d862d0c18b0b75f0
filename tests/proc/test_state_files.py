"""What is opened of folders of state files, and what is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pagewalk.proc.containers import LARGEST, read_records
from pagewalk.proc.engines import MOST
from pagewalk.proc.state_files import OF_USER, OF_USERS, Search, opened


def search(root: Path, **apart: str) -> Search:
    """Return a search in which folders of ``root`` are mount points that may never answer."""
    found = Search(str(root))
    found.apart = {f"{root}/{name}": kind for name, kind in apart.items()}
    return found


def paths(found: Search, folders: str) -> list[str]:
    every = (folder.path for folder in opened(found, folders, []))
    return sorted(path.removeprefix(f"{found.root}/") for path in every)


def test_what_the_stars_matched_is_told(tmp_path: Path) -> None:
    for name in ("a/x-containers/one", "a/y-containers/two", "a/z/three"):
        (tmp_path / name).mkdir(parents=True)
    every = opened(search(tmp_path), "a/*-containers/*", [])
    found = {folder.stars: folder.path for folder in every}
    assert found == {
        ("x-containers", "one"): f"{tmp_path}/a/x-containers/one",
        ("y-containers", "two"): f"{tmp_path}/a/y-containers/two",
    }


@pytest.mark.parametrize(("point", "left"), [("home", []), ("home/eve", ["home/bob"])])
def test_nothing_is_opened_on_what_may_never_answer(
    tmp_path: Path, point: str, left: list[str]
) -> None:
    for name in ("bob", "eve"):
        (tmp_path / "home" / name).mkdir(parents=True)
    found = search(tmp_path, **{point: "fuse.sshfs"})
    assert paths(found, "home/*") == left
    assert found.said() == [
        f"did not look below {tmp_path}/{point}: a file system of type fuse.sshfs may never answer"]


def test_a_link_to_what_may_never_answer_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "far/docker").mkdir(parents=True)
    (tmp_path / "var/docker").symlink_to("../far/docker")
    assert paths(search(tmp_path), "var/docker") == ["var/docker"]
    found = search(tmp_path, far="nfs4")
    assert paths(found, "var/docker") == [] and len(found.said()) == 1


def test_what_is_not_there_is_not_told(tmp_path: Path) -> None:
    found = search(tmp_path, home="nfs")
    assert paths(found, "var/*") == [] and found.said() == []
    assert os.listdir(tmp_path) == []


def test_what_is_read_of_a_user_is_bounded(tmp_path: Path) -> None:
    found, (size, rows) = search(tmp_path), OF_USER
    assert found.take(1000, size=size) and found.take(1000, rows=rows)
    assert not found.take(1000, size=1) and not found.take(1000)  # once too much, nothing more
    assert found.take(1001, size=size, rows=rows)
    assert not found.take(1002, size=1)
    assert found.take(0, size=OF_USERS.bytes)
    assert found.said() == [
        "did not read all files of user 1000: more than 16 MiB, or 20000 names",
        "did not read all files of ordinary users: more than 32 MiB, or 40000 names",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_one_large_file_under_many_names_is_read_a_few_times(tmp_path: Path) -> None:
    home = tmp_path / "home/eve/.local/share/containers/storage"
    entries = [{"id": f"{at:064x}", "names": ["x" * 100]} for at in range(MOST)]
    first = home / "a0-containers/containers.json"
    for at in range(60):
        (home / f"a{at}-containers").mkdir(parents=True)
    first.write_text(json.dumps(entries))
    os.chown(first, 1000, 1000)
    for at in range(1, 60):
        (home / f"a{at}-containers/containers.json").hardlink_to(first)
    assert first.stat().st_size < LARGEST
    found = read_records(str(tmp_path))
    # bytes, or records besides the names of the folders: whichever is less
    assert len(found.rows) <= OF_USER.rows
    assert found.missing == (
        "did not read all files of user 1000: more than 16 MiB, or 20000 names",)
