"""explain: what TARGET means, and what is advised where something remains unexplained."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.commands.explain import advice
from tests.history.by_hand import Process, Run, recorded
from tests.live.command import one_sentence, pagewalk_here


def test_what_is_advised_can_be_done() -> None:
    assert advice(False, recorded=False) == "; try --freeze, which stops the target"
    assert advice(True, recorded=False) == ""
    # A recording cannot be stopped any more: explain FILE refuses --freeze.
    assert advice(False, recorded=True).startswith("; record it with --freeze")


def test_a_cgroup_may_be_called_as_a_folder_of_recordings_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    recorded(folder / "a.pagewalk", Process(5, runs=(Run(9),)))
    assert "a folder of recordings" in one_sentence(pagewalk_here("explain", folder))
    said = one_sentence(pagewalk_here("explain", "--cgroup", folder))
    assert "recording" not in said and "no memory cgroup" in said
    monkeypatch.chdir(tmp_path)
    assert "name one in it" in one_sentence(pagewalk_here("explain", "web"))
