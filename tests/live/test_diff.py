"""`diff` tells what became of the memory of real processes, and adds up to the change of RSS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again, smaller
from tests.live.command import one_sentence, pagewalk_here
from tests.machine import memory_cgroup, prepared
from tests.targets import TARGETS, asleep, start
from tests.targets.running import HERE

pytestmark = pytest.mark.live

PAGE = os.sysconf("SC_PAGESIZE")
AREA, HUGE = 64, 512
MIB = 1 << 20
ROWS = ("what", "change", "before", "after", "swap", "hugetlb")


class Changing:
    """The process tests/targets/changing.py: told to change, and recorded before and after."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "file"
        self.file.write_bytes(os.urandom(AREA * PAGE))
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "changing.py"), str(self.file)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True)
        self.areas: dict[str, int] = self.answer()
        self.pid = self.process.pid

    def answer(self) -> dict[str, int]:
        """Return where its areas are, when it has done what it was told."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline())["areas"])

    def do(self, word: str) -> None:
        """Let it do one thing."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()
        self.areas = self.answer()

    def recorded(self, name: str) -> Path:
        """Return a recording of it as it is."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        assert pagewalk_here("record", self.pid, "-o", path, "--physical").code in (0, 3)
        return path

    def became(self, area: str, *words: str, live: bool = False) -> dict[str, int]:
        """Return what became of ``area`` when it did ``words``: pages by class.

        What the classes say of all of it adds up to the change of RSS, to the page.
        """
        before = self.recorded("before")
        for word in words:
            self.do(word)
        after = str(self.pid) if live else self.recorded("after")
        said = diffed(before, after, "--by", "vma")
        where = range(self.areas[area], self.areas[area] + HUGE * PAGE)
        end = where.start + (HUGE if area == "huge" else AREA) * PAGE
        rows = [row for row in said["rows"] if where.start - PAGE <= int(row["addr"], 0) < end
                or (area == "huge" and 0 <= where.start - int(row["addr"], 0) < HUGE * PAGE)]
        found: dict[str, int] = {}
        for row in rows:
            for key, amount in classes(row).items():
                found[key] = found.get(key, 0) + amount // PAGE
        return found


def classes(row: dict[str, Any]) -> dict[str, int]:
    """Return the classes of a row that have any bytes."""
    from pagewalk.history.changes import CLASSES

    return {one.key: row[one.key] for one in CLASSES if row[one.key]}


def diffed(*words: object) -> Any:
    """Return what `diff` prints as JSON; the classes add up, in all and in each row."""
    ran = pagewalk_here("diff", *words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    said = ran.json
    assert said["unexplained"] == 0
    for rows in (said["rows"], said["kinds"]):
        assert sum(row["change"] for row in rows) == said["totals"]["change"]
    for row in (*said["rows"], said["totals"]):
        assert row["after"] - row["before"] == row["change"] == sum(row["of_rss"].values())
    return said


@contextmanager
def changing(folder: Path, *needs: str) -> Iterator[Changing]:
    with prepared(*needs):
        found = Changing(folder)
        try:
            yield found
        finally:
            os.killpg(found.process.pid, signal.SIGKILL)
            found.process.communicate()


@pytest.mark.parametrize(("area", "words", "pages"), [
    ("touch", ["touch"], {"touched": 5}),
    ("drop", ["drop"], {"dropped": 7, "unchanged": AREA - 7}),
    # What is behind it is a VMA of its own now, in which nothing changed.
    ("part", ["part"], {"unmapped": 9, "unchanged": 8}),
    ("unmap", ["unmap"], {"unmapped": AREA}),
    ("grown", ["grow"], {"grown": AREA}),
    ("zero", ["zero"], {"copied": 4, "unchanged": AREA - 4}),
    ("private_file", ["private_file"], {"copied": 6, "unchanged": AREA - 6}),
    ("file", ["file"], {"read_in": AREA}),
    ("shared", ["fork"], {"shared": AREA}),
], ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("live", [False, True], ids=["recorded", "live"])
def test_what_became_of_it(
    area: str, words: list[str], pages: dict[str, int], live: bool, tmp_path: Path
) -> None:
    with changing(tmp_path) as process:
        found = process.became(area, *words, live=live)
    moved = found.pop("moved", 0)  # the kernel may move pages to other frames at any time
    if moved:
        found["unchanged"] = found.get("unchanged", 0) + moved
    assert found == pages


def test_what_a_child_still_shares_and_what_was_copied(tmp_path: Path) -> None:
    with changing(tmp_path) as process:
        process.do("fork")
        # The writer has copies; the frames are the child's own now.
        assert process.became("copied", "copy") == {"copied": 12, "unchanged": AREA - 12}


def test_what_was_swapped_out_and_came_back(tmp_path: Path) -> None:
    with changing(tmp_path, "zram") as process:
        found = process.became("swap", "swap")
        assert found == {"swapped_out": 11, "unchanged": AREA - 11}
        found = process.became("swap", "read back")
        # What was read ahead is not mapped.
        assert found == {"swapped_in": 3, "unchanged": AREA - 3}


def test_memory_that_moved_to_another_address(tmp_path: Path) -> None:
    with changing(tmp_path) as process:
        before = process.recorded("before")
        process.do("move")
        said = diffed(before, process.pid)
    whole = classes(said["totals"])
    assert whole["unmapped"] == whole["grown"] >= AREA * PAGE
    assert whole["unmapped"] < 2 * AREA * PAGE and abs(said["totals"]["change"]) < AREA * PAGE


def test_small_pages_become_a_huge_one_and_small_again(tmp_path: Path) -> None:
    with changing(tmp_path, "thp") as process:
        assert process.became("huge", "collapse") == {"huge": HUGE}
        found = process.became("huge", "split")
        assert found == {"split": HUGE - 1, "dropped": 1}


def test_a_recording_and_itself(tmp_path: Path) -> None:
    with start("plain", stopped=True) as running:
        path = tmp_path / "a.pagewalk"
        assert pagewalk_here("record", running.pid, "-o", path).code == 0
    said = diffed(path, path)
    assert said["rows"] == said["kinds"] == []
    assert set(classes(said["totals"])) == {"unchanged"}
    assert pagewalk_here("diff", path, path).out.startswith("Nothing changed in 0 s")


# Slow, or never still.
LEFT_OUT = {"hugetlb_pud", "java", "storm", "batching", "reservation", "deep", "leader_dead"}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of another process."""
    path = tmp_path_factory.mktemp("diff") / "plain.pagewalk"
    with start("plain", stopped=True) as running:
        assert pagewalk_here("record", running.pid, "-o", path, "--physical").code == 0
    return path


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in LEFT_OUT])
def test_the_classes_add_up_to_the_change_of_rss(name: str, other: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pagewalk"
    with (prepared(*TARGETS[name].needs),
          start(name, *smaller(name, "auto"), stopped=True) as running):
        ran = pagewalk_here("record", running.pid, "-o", path, "--physical")
        assert ran.code in (0, 3), ran.err

        def look() -> None:
            # A stopped process changes only where the kernel or others do something to its pages.
            said = diffed(path, running.pid)
            assert said["compared"][0]["same"]
            assert set(classes(said["totals"])) <= {"unchanged", "shared", "private", "moved"}

        look_again(look)
    said = diffed(other, path)
    assert not said["compared"][0]["same"]


def test_a_leak_is_found_in_the_first_line(tmp_path: Path) -> None:
    program = tmp_path / "service.py"
    program.write_text(textwrap.dedent("""\
        import sys
        seen = []
        print("ready", flush=True)
        for request in sys.stdin:
            seen.append([str(n) * 40 for n in range(20_000)])  # never forgotten
            print("done", flush=True)
    """))
    with subprocess.Popen([sys.executable, str(program)], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        path = tmp_path / "before.pagewalk"
        assert pagewalk_here("record", process.pid, "-o", path).code == 0
        for _ in range(10):
            process.stdin.write("GET\n")
            process.stdin.flush()
            process.stdout.readline()
        ran = pagewalk_here("diff", path, "--live", "--human")
        over = pagewalk_here("diff", path, process.pid, "--max-growth", "10M")
        within = pagewalk_here("diff", path, process.pid, "--max-growth", "1G")
        process.kill()
    first = ran.out.splitlines()[0]
    # 200 000 texts of 40 to 200 characters: some 40 MB.
    grown = first.partition("RSS grew by ")[2].partition("M")[0]
    assert 20 < int(grown) < 80, first
    assert "heap" in first or "anonymous" in first
    assert (over.code, within.code) == (4, 0)
    assert "grew by" in over.err and "more than the budget of 10M" in over.err
    assert pagewalk_here("diff", path, "--live").code == 5


def test_two_runs_of_a_program_are_compared_by_what_is_mapped(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "other"):
        with start("python", stopped=True) as running:
            paths.append(tmp_path / f"{name}.pagewalk")
            assert pagewalk_here("record", running.pid, "-o", paths[-1]).code == 0
    said = diffed(*paths, "--by", "file")
    whole = said["totals"]
    # Randomised addresses do not drown it: of two equal runs next to nothing differs.
    assert not said["compared"][0]["same"]
    assert abs(whole["change"]) < whole["before"] // 10
    assert whole["unchanged"] > whole["before"] * 3 // 4
    assert any("compared as sums" in row["why"] for row in said["withheld"])


def test_the_charge_of_a_cgroup_is_compared_by_kind_and_by_file(tmp_path: Path) -> None:
    size = 24 * MIB
    write = "read line; head -c $1 /dev/zero > $2; echo done; read line"
    # /tmp may be a tmpfs, whose files are no page cache of a disk.
    with memory_cgroup("diff") as group, tempfile.TemporaryDirectory(
            prefix="pagewalk-", dir="/var/tmp") as folder:
        name = f"/{group.relative_to(find_hierarchy().mount)}"
        file = f"{folder}/report.csv"
        with subprocess.Popen(
            ["sh", "-c", f"echo $$ > {group}/cgroup.procs; {write}", "sh", str(size), file],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            wait_for(lambda: str(process.pid) in (group / "cgroup.procs").read_text().split())
            paths = [tmp_path / "before.pagewalk", tmp_path / "after.pagewalk"]
            for path in paths:
                ran = pagewalk_here("record", "--cgroup", name, "-o", path)
                assert ran.code in (0, 3), ran.err
                process.stdin.write("go\n")
                process.stdin.flush()
                if path is paths[0]:
                    process.stdout.readline()
        ran = pagewalk_here("diff", *paths, "--ram", "--format", "json")
        assert ran.code == 0, ran.err
        said = ran.json
        files = pagewalk_here("diff", *paths, "--by", "file", "--ram", "--format", "json").json
    assert said["of"] == f"the pages charged to {name}"
    # Of the file every page was charged to this group; of other memory it may have a little.
    assert size <= said["totals"]["change"] < size + 8 * MIB
    assert max(said["rows"], key=lambda row: row["change"])["what"].startswith("cache")
    assert {row["what"]: row["change"] for row in files["rows"]}[file] == size


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something holds; a hang is no pass."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_zombie_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.pagewalk"
    process = subprocess.Popen(["sleep", "1000"])
    try:
        assert pagewalk_here("record", process.pid, "-o", path).code == 0
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ran = pagewalk_here("diff", path, process.pid)
        assert ran.code == 2 and "has an address space" in one_sentence(ran)
    finally:
        process.wait()


def test_a_data_set_is_compared_from_its_first_recording_to_its_last(tmp_path: Path) -> None:
    with changing(tmp_path) as process:
        folder = tmp_path / "night"
        for word in ("touch", "grow", "zero"):
            ran = pagewalk_here("record", process.pid, "-o", folder, "--every", "1", "--for",
                                "0.01")
            assert ran.code in (0, 3), ran.err
            process.do(word)
        said = diffed(folder)
        assert pagewalk_here("diff", tmp_path).code == 2
    classes_of = classes(said["totals"])
    assert classes_of["touched"] >= 5 * PAGE and classes_of["grown"] >= AREA * PAGE
    assert said["before"]["time"] < said["after"]["time"]


def test_of_several_processes_some_end_and_some_begin(tmp_path: Path) -> None:
    paths, sleepers = [tmp_path / "a.pagewalk", tmp_path / "b.pagewalk"], []
    try:
        sleepers = [subprocess.Popen(["sleep", f"100{at}"]) for at in range(3)]
        for process in sleepers:
            asleep(process.pid, "sleep")
        pids = [process.pid for process in sleepers]
        assert pagewalk_here("record", *pids[:2], "-o", paths[0]).code in (0, 3)
        assert pagewalk_here("record", *pids[1:], "-o", paths[1]).code in (0, 3)
        said = diffed(*paths, "--by", "process")
        one = diffed(f"{paths[0]}:{pids[1]}", f"{paths[1]}:{pids[2]}")
        sleepers[0].kill()
        sleepers[0].wait()
        live = diffed(paths[0], "--live")
        word = pagewalk_here("diff", paths[0], pids[1], "--format", "json").json
        nobody = pagewalk_here("diff", f"{paths[0]}:none", paths[1])
    finally:
        for process in sleepers:
            process.kill()
            process.wait()
    # One is in both; the others were started by other words, and have the program in common.
    assert [pair["before"] for pair in said["compared"] if pair["same"]] == [pids[1]]
    assert one["compared"] == [{"before": pids[1], "after": pids[2], "name": "sleep",
                                "same": False}]
    assert [member["pid"] for member in live["ended"]] == [pids[0]]
    assert live["totals"]["ended"] > 0 and live["totals"]["change"] < 0
    assert [pair["before"] for pair in word["compared"]] == [pids[1]]
    assert nobody.code == 2 and "called 'none'" in nobody.err
