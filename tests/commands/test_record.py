"""record: what does not go together is refused before anything is recorded."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pagewalk.commands.record import grouped, words_of
from pagewalk.commands.sets import Named
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


@pytest.mark.parametrize(("into", "says"), [
    ("file", "and {} is a file"), ("-", "not standard output"),
])
def test_a_series_needs_a_directory(into: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    path = into if into == "-" else str(tmp_path / into)
    said = one_sentence(pagewalk_here("record", os.getpid(), "--every", "1s", "-o", path))
    assert "-o must be a directory" in said and said.endswith(says.format(path))
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("more", [(), ("--every", "1s"), ARMED])
def test_an_empty_name_is_one_sentence(more: tuple[str, ...]) -> None:
    named = () if more == ARMED else (os.getpid(),)
    ran = pagewalk_here("record", *named, *more, "-o", "")
    assert ran.code == 2 and one_sentence(ran).startswith("cannot record into '': ")


def test_processes_that_were_refused_alike_are_one_line() -> None:
    def why(pid: int, uid: int) -> str:
        return f"cannot read /proc/{pid}/maps: permission denied: it belongs to uid {uid}"

    refused = [*((pid, why(pid, 1)) for pid in range(10, 422)), (500, "it is odd"), (7, why(7, 2)),
               (8, why(8, 2))]
    assert grouped(refused) == [
        f"412 processes were not recorded, such as process 10: {why(10, 1)}",
        "process 500 was not recorded: it is odd",
        f"2 processes were not recorded, such as process 7: {why(7, 2)}"]
    assert grouped([]) == []


def test_what_was_asked_for_is_kept_without_names_to_scrub() -> None:
    named = Named(("7", "customer.py"), ("8",), ("/customer",), ("customer", "9"), False)
    asked = "7 customer.py --tree 8 --cgroup /customer --user customer --user 9 --ram"
    assert words_of(named, ram=True, scrub=False) == asked
    assert words_of(named, ram=True, scrub=True) == re.sub(r"/?customer\S*", "...", asked)
