"""Several processes of a recording answer as they did live: the same command, the same JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk, pagewalk_here
from tests.live.programs import wait
from tests.live.test_share import server
from tests.machine import memory_cgroup, prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

# How long a read took differs each time; what others map is another thing in `anywhere`.
MOVES = {"stall_ns"}
NAMES = ("fork_three", "shared_mm", "thp_fork", "hugetlb_fork", "swap_forked", "ksm", "memfd")
SHORT = (("share",), ("top",), ("top", "--by", "mapping"), ("top", "--huge"))
COMMANDS = (*SHORT, *(("top", "--by", by) for by in ("program", "user", "cgroup")))
# A user of no rights; the same on a machine without /proc.
USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ELSEWHERE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"', *USER)


@pytest.fixture
def file() -> Iterator[Path]:
    """Yield where a recording goes that any user may reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder / "a.pagewalk"
    finally:
        shutil.rmtree(folder)


def said(*words: object) -> Any:
    """Return the JSON that a command prints, without what differs each time."""
    ran = pagewalk_here(*words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    return kept(ran.json)


def kept(found: dict[str, Any]) -> Any:
    return {key: value for key, value in found.items() if key not in MOVES}


def record(file: Path, *words: object) -> None:
    ran = pagewalk_here("record", *words, "-o", file)
    assert ran.code in (0, 3), ran.err


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_told_the_same(name: str, file: Path) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look(words: tuple[str, ...]) -> None:
            # Others map and unmap libc meanwhile: live before, the recording, live after.
            before = said(*words, *running.pids)
            record(file, *running.pids)
            after = said(*words, *running.pids)
            assert before == after
            assert said(*words, file) == before

        for words in COMMANDS if name == "fork_three" else SHORT:
            look_again(partial(look, words))


def test_a_family_in_a_cgroup_is_told_the_same_and_so_are_its_parts(file: Path) -> None:
    with memory_cgroup("record-sets") as group, server(group) as (process, pids):
        # each of which names the processes by words, and the same of a part of them
        words: list[tuple[object, ...]] = [
            ("--tree", process.pid), ("--cgroup", group.name), ("--cgroup", f"/{group.name}"),
            tuple(pids)]

        def look() -> None:
            before = said("share", "--tree", process.pid)
            part = said("share", *pids[1:3])
            record(file, "--tree", process.pid)
            for each in words:
                assert said("share", file, *each) == before
            assert said("share", file) == before
            recorded = said("share", file, *pids[1:3])
            assert said("share", "--tree", process.pid) == before
            assert said("share", *pids[1:3]) == part
            assert before["objects"] and not part["objects"]
            # which processes are in a cgroup besides these, only the machine tells
            assert recorded.pop("peak")["cgroup"] is part.pop("peak")["cgroup"] is None
            assert recorded == part

        look_again(look)


def test_words_mean_processes_of_the_recording(file: Path) -> None:
    with server() as (process, pids):
        record(file, "--tree", process.pid)
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        uid = os.getuid()
        user = pagewalk_here("top", process.pid, "--by", "user", "--format", "json").json
    # They have ended: nothing but the recording knows them.
    assert not Path(f"/proc/{process.pid}").exists()
    for words in ((file,), (file, name), (file, "--tree", process.pid), (file, "--user", uid),
                  (file, "--user", user["lines"][0]["key"]), (file, "--all"), (file, name[0] + "*"),
                  tuple(f"{file}:{pid}" for pid in pids), (f"{file}:{name}",)):
        assert {row["pid"] for row in said("share", *words)["members"]} == {*pids}, words
        assert {row["key"] for row in said("top", *words)["lines"]} == {*pids}, words
    assert [row["pid"] for row in said("share", f"{file}:{pids[2]}")["members"]] == [pids[2]]


def test_processes_and_the_overview_are_those_of_the_recording(file: Path) -> None:
    with start("fork_three", stopped=True) as running:

        def look() -> None:
            listed, first = said("processes"), said("overview", "--limit", 100_000)
            lines = said("top", *running.pids)["lines"]
            record(file, *running.pids)
            for before, after in ((listed, said("processes", file)),
                                  (first, said("overview", file))):
                assert after["machine"] == before["machine"]
                assert {row["pid"] for row in after["processes"]} == {*running.pids}
            ours = {row["pid"]: row for row in listed["processes"] if row["pid"] in running.pids}
            assert {row["pid"]: row for row in said("processes", file)["processes"]} == ours
            found = said("overview", file)
            assert said("top", *running.pids)["lines"] == lines
            held = {line["key"]: line for line in lines}
            for row in found["processes"]:
                assert {key: row[key] for key in ("name", "argv0", "uid", "script", "command")} == {
                    key: ours[row["pid"]][key] for key in
                    ("name", "argv0", "uid", "script", "command")}
                for key in ("rss", "pss", "uss", "swap"):
                    assert row[key] == held[row["pid"]][key]
            assert found["total"] is found["rows"] is found["held"] is None
            assert "without --ram" in json.dumps(found["withheld"])

        look_again(look)


def test_a_user_of_no_rights_reads_it_and_no_proc_is_needed(file: Path) -> None:
    commands = (*COMMANDS, ("processes",), ("overview",))
    with start("fork_three", stopped=True) as running:
        record(file, *running.pids)
        here = [said(*words, file) for words in commands]
    os.chown(file, 65534, 65534)
    for words, expected in zip(commands, here, strict=True):
        ran = pagewalk(*words, file, "--format", "json", before=ELSEWHERE)
        assert ran.code in (0, 3), ran.err
        assert kept(ran.json) == expected


def test_a_part_of_an_address_space_frees_nothing(file: Path) -> None:
    with start("shared_mm", stopped=True) as running:

        def look() -> None:
            before = said("share", running.pid)
            record(file, running.pid)
            alone = said("share", file)
            record(file, *running.pids)
            part = said("share", f"{file}:{running.pid}")
            assert said("share", running.pid) == before
            assert alone == before and before["freed"] == 0
            assert {**part, "peak": None} == {**before, "peak": None}

        look_again(look)


def test_who_could_not_be_looked_at_is_told_from_the_recording_too(file: Path) -> None:
    os.chown(file.parent, 65534, 65534)
    with start("plain", stopped=True) as other, subprocess.Popen([*USER, "sleep", "1000"]) as own:
        try:
            wait(lambda: Path(f"/proc/{own.pid}/comm").read_text() == "sleep\n", "sleep")
            both = (own.pid, other.pid)
            for words in SHORT[:2]:
                before = pagewalk(*words, *both, "--format", "json", before=USER)
                made = pagewalk("record", *both, "-o", file, before=USER)
                after = pagewalk(*words, file, "--format", "json", before=USER)
                assert before.code == made.code == after.code == 3, made.err
                assert f"process {other.pid} was not recorded: " in made.err
                assert kept(after.json) == kept(before.json)
            assert [row["pid"] for row in after.json["not_looked"]] == [other.pid]
            ran = pagewalk("query", file, "select pid from processes", before=USER)
            assert ran.code == 3 and "some processes: 1 could not be recorded" in ran.err
        finally:
            own.kill()


def test_what_makes_no_sense_gets_a_sentence(file: Path) -> None:
    with start("plain", stopped=True) as running:
        record(file, running.pid, "--scrub")
    two = file.with_name("b.pagewalk")
    shutil.copy(file, two)
    for words, text in (
        (("share", file, two), "are two recordings"),
        (("share", file, "--watch", 1), "--watch is about a live process"),
        (("top", file, "--source", "procfs"), "--source is about a live process"),
        (("share", file, "no such"), "no process is called 'no such'"),
        (("share", file, "--tree", "x"), "not a valid pid"),
        (("share", file, "--user", "nobody-at-all"), "there is no user"),
        (("top", file, "--by", "cgroup"), "--scrub"),
        (("top", file, "--cgroup", "x"), "--scrub"),
        (("top", file, "--huge", "--zeros"), "--zeros reads the contents of memory"),
        (("top", file, "--huge", "--by", "user"), "--huge is about processes"),
        (("overview", file.parent / "none.pagewalk"), "no such file"),
        (("processes", __file__), "does not begin as a Parquet file does"),
    ):
        ran = pagewalk_here(*words)
        assert ran.code in (1, 2) and ran.out == "" and text in ran.err, (words, ran.err)
    gone = pagewalk_here("share", file, 2147483646)
    assert gone.code == 5 and "process 2147483646 does not exist" in gone.err
