"""What is opened of folders of state files, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.proc.state_files import Search, opened


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
