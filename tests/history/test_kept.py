"""Names of the armed recorder's recordings, and which are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.history.kept import ENDING, called, file_name, prune

SECOND = 1_764_225_296  # 2025-11-27T06:34:56Z


def test_names_sort_by_time_and_tell_the_reason() -> None:
    first = file_name(called("/system.slice/shop.service"), "near", SECOND * 10**9 + 5_000)
    then = file_name(called("/system.slice/shop.service"), "kill", SECOND * 10**9 + 999_999_000)
    assert first.startswith("2025-11-27T06-34-56.000005Z-near-shop.service-")
    assert first < then and then.endswith(ENDING)


def test_groups_of_one_name_have_files_of_their_own() -> None:
    assert called("/a/app") != called("/b/app")


@pytest.mark.parametrize("path", [
    "/", "/..", "/a\nb", "/\x1b[2J", "/" + "x" * 255, "/-rf", os.fsdecode(b"/\xff\xfe"),
    "/two words", "/$(id)", "/ü",
])  # fmt: skip
def test_any_path_makes_a_name_of_one_line_that_harms_nobody(path: str, tmp_path: Path) -> None:
    name = file_name(called(path), "kill", 0)
    assert name.isascii() and name.isprintable() and not set(name) & set("/ $()[]")
    assert len(name) < 200
    (tmp_path / name).touch()
    assert os.listdir(tmp_path) == [name]


def test_only_the_newest_of_a_reason_are_kept(tmp_path: Path) -> None:
    made = [file_name("a", reason, SECOND * 10**9 + at)
            for at in range(0, 5000, 1000) for reason in ("near", "kill")]
    others = [file_name("b", "near", 0), "notes.txt", f"near{ENDING}"]
    for name in (*made, *others):
        (tmp_path / name).touch()
    prune(str(tmp_path), "a", "near", 2)
    near = sorted(name for name in made if "Z-near-" in name)
    assert set(os.listdir(tmp_path)) == {*made, *others} - set(near[:3])
    prune(str(tmp_path), "a", "near", 2)
    assert len(os.listdir(tmp_path)) == len(made) + len(others) - 3


def test_a_scrubbed_name_tells_nothing_of_the_path() -> None:
    assert called("/system.slice/shop.service", 77) == called("/other", 77) == "cgroup-77"
