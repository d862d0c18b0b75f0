"""record: what does not go together is refused before anything is recorded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.live.command import one_sentence, pagewalk_here

ARMED = ("--armed", "/")


@pytest.mark.parametrize(("words", "says"), [
    ((*ARMED, str(os.getpid())), "leave out all others"),
    ((*ARMED, "--every", "1s"), "leave out --every"),
    ((*ARMED, "--for", "1s"), "leave out --for"),
    ((*ARMED, "--ram"), "leave out --ram and --machine"),
    ((*ARMED, "--machine"), "leave out all others"),
    ((*ARMED, "--freeze"), "leave out --freeze"),
    (("--for", "1s"), "add --every"),
    (("--hold",), "--hold is about --armed CGROUP"),
    (("--near", "0"), "--near is about --armed CGROUP"),
    (("--pressure", "0"), "--pressure is about --armed CGROUP"),
    (("--at-most", "0s"), "--at-most is about --armed CGROUP"),
    (("--look", "0s"), "--look is about --armed CGROUP"),
    (("--keep", "1"), "--keep is about --armed CGROUP"),
], ids=lambda words: " ".join(words) if isinstance(words, tuple) else "")  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    ran = pagewalk_here("record", *words, "-o", tmp_path / "a")
    assert ran.code == 2 and says in one_sentence(ran)
    assert not list(tmp_path.iterdir())
