"""A recording answers as the process did: the same command, the same JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pagewalk.snapshot.read import open_recording
from tests.live.bracket import look_again, working_sources
from tests.live.command import PAGEWALK, Ran, one_sentence, pagewalk, pagewalk_here, run
from tests.machine import prepared
from tests.targets import TARGETS, start
from tests.targets.gos import GOS, holding

pytestmark = pytest.mark.live

# How long a read took differs each time.
MOVES = {"stall_ns"}
NAMES = ("plain", "fork_three", "shared_fork", "zero_reads", "locked", "lazyfree", "reservation",
         "file_private", "memfd", "names", "thp", "thp_part", "thp_holes", "huge_zero",
         "shmem_thp", "hugetlb_fork", "guard", "ksm", "swap_private", "swap_forked", "swap_mixed",
         "perf_ring", "odd_name", "shared_mm", "sleep")
COMMANDS = (
    ("show",), ("show", "--counts"), ("maps",), ("maps", "--all"), ("maps", "--huge"),
    ("maps", "--by", "kind"), ("maps", "--by", "perms"), ("maps", "--by", "file"),
    ("maps", "--columns", "rss,lazyfree,swap_pss", "--sort", "rss"), ("pages",),
    ("pages", "--where", "anon,mapcount>1"), ("pages", "--sort", "mapcount", "--limit", "20"),
    ("explain",), ("explain", "--no-smaps"),
)
FEW = (("show",), ("maps",), ("maps", "--all"), ("maps", "--huge"), ("pages",), ("explain",))
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
ANEW = "numbered anew"

# Flags of frames of libc that the kernel, and others that run, turn on and off all the time.
TURNING = {"referenced", "active", "young", "lru", "locked", "idle"}


def said(*words: object) -> Any:
    """Return the JSON that a command prints, without what differs each time."""
    return document(pagewalk_here(*words, "--format", "json"), str(words[0]))


def document(ran: Ran, command: str) -> Any:
    assert ran.code in (0, 3), ran.err
    if command == "pages":
        rows = [json.loads(line) for line in ran.out.splitlines()]
        return [row | {"flags": [one for one in row["flags"] if one not in TURNING]}
                for row in rows]
    return {key: value for key, value in ran.json.items() if key not in MOVES}


def recorded(pid: int, path: Path, *options: str) -> Path:
    ran = pagewalk_here("record", pid, "-o", path, *options)
    assert ran.code in (0, 3), ran.err
    return path


def check_same(
    pid: int, path: Path, words: tuple[str, ...], *options: str, source: str = "auto"
) -> None:
    """Compare a recording of a stopped process with what it says itself before and after."""
    live = (*words, pid, "--source", source)

    def look() -> None:
        # Others map and unmap libc meanwhile: live before, the recording, live after.
        before = said(*live)
        recorded(pid, path, "--source", source, *options)
        found = said(*words, path)
        assert before == said(*live), words
        assert found == before, words

    look_again(look)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_command_prints_the_same(name: str, tmp_path: Path) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for words in COMMANDS:
            check_same(running.pid, tmp_path / "a", words, "--physical", "--smaps", "--swap-users")


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize("name", ["fork_three", "thp_holes", "swap_forked"])
def test_from_whatever_it_was_read(name: str, source: str, tmp_path: Path) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for words in FEW:
            check_same(running.pid, tmp_path / "a", words, "--physical", "--smaps", "--swap-users",
                       source=source)


@pytest.mark.parametrize("name", ["plain", "fork_three", "thp_holes", "hugetlb_fork", "swap_mixed"])
def test_without_physical_addresses_the_rest_is_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for words in COMMANDS:

            def look(words: tuple[str, ...] = words) -> None:
                before = said(*words, running.pid)
                recorded(running.pid, path, "--smaps", "--swap-users")
                found = said(*words, path)
                assert before == said(*words, running.pid)
                assert without_frames(found) == without_frames(before), words

            look_again(look)
        rows = said("pages", path)
    present = [row for row in rows if row["mapcount"] is not None]
    assert present and {row["phys"] for row in rows} == {None} == {row["pfn"] for row in rows}
    assert os.stat(path).st_mode & 0o777 == 0o600


def without_frames(found: Any) -> Any:
    """Return a document without the numbers of frames, and without why they are withheld."""
    if isinstance(found, list):
        return [{**row, "phys": None, "pfn": None} for row in found]
    rows = [row for row in found.get("withheld", ()) if ANEW not in row["why"]]
    return {**found, "withheld": rows}


@pytest.mark.parametrize("name", ["plain", "fork_three", "threads", "python"])
def test_a_heap_is_what_it_was(name: str, tmp_path: Path) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        check_same(running.pid, tmp_path / "a", ("heap",), "--heap", "--physical")


def test_a_heap_of_go_is_what_it_was(tmp_path: Path) -> None:
    with holding(GOS[0], "small") as program:
        os.kill(program.pid, signal.SIGSTOP)
        check_same(program.pid, tmp_path / "a", ("heap",), "--heap", "--physical")


@pytest.mark.parametrize("name", ["file_private", "memfd", "hugetlb_fork", "names"])
def test_the_files_are_what_they_were(name: str, tmp_path: Path) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        check_same(running.pid, tmp_path / "a", ("maps", "--cache"), "--cache", "--physical")


def test_who_maps_a_page_is_known_of_all_that_were_recorded(tmp_path: Path) -> None:
    """The facts are those of the program: seven pages mapped by parent and two children."""
    path = tmp_path / "a"
    with start("fork_three", stopped=True) as running:
        recorded(running.pid, path, "--tree", str(running.pid), "--physical")
        rows = said("pages", f"{path}:{running.pid}", "--where", "anon,mapcount=3")
        live = said("who", running.pid, rows[0]["addr"])
        found = said("who", f"{path}:{running.pid}", rows[0]["addr"])
        assert found["frame"]["pfn"] == live["frame"]["pfn"] == rows[0]["pfn"]
        assert found["frame"]["flags"] == live["frame"]["flags"]
        by_pid = sorted(found["mappers"], key=lambda one: one["pid"])
        assert by_pid == sorted(live["mappers"], key=lambda one: one["pid"])
        assert {one["pid"] for one in by_pid} == set(running.pids)
        recorded(running.pid, path)
        ran = pagewalk_here("who", path, rows[0]["addr"])
        assert ran.code == 0
        assert "2 more are by processes not in the recording" in " ".join(ran.out.split())
        assert said("who", path, rows[0]["addr"])["frame"]["pfn"] is None


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """Return a directory that every user can write to."""
    folder = tempfile.mkdtemp(dir="/var/tmp")
    os.chmod(folder, 0o777)
    yield Path(folder)
    shutil.rmtree(folder)


def test_what_hides_frames_hides_them_in_the_recording(anybodys: Path) -> None:
    path = anybodys / "a"

    with start("nobody", stopped=True) as running:
        for words in (*FEW, ("show", "--counts")):

            def ask(target: object, words: tuple[str, ...] = words) -> Any:
                return document(pagewalk(*words, target, "-f", "json", before=AS_NOBODY), words[0])

            def look(words: tuple[str, ...] = words) -> None:
                before = ask(running.pid, words)
                ran = pagewalk("record", running.pid, "-o", path, "--smaps", before=AS_NOBODY)
                assert ran.code == 3 and "recorded in" in ran.out, ran.err
                found = ask(path, words)
                assert before == ask(running.pid, words)
                assert found == before, words

            look_again(look)
        ran = pagewalk("who", path, "zoo", before=AS_NOBODY)
    assert ran.code == 1 and "record it as root" in one_sentence(ran)


# What a recording does not have, and what the sentence says.
REFUSED = (
    (("vtop", "{}", "stack-8"), "does not have the page tables"),
    (("check", "{}"), "does not have a second walk"),
    (("heap", "{}"), "record it with --heap"),
    (("maps", "--cache", "{}"), "record it with --cache"),
    (("maps", "--huge", "--zeros", "{}"), "ask the process itself"),
    (("show", "{}", "--freeze"), "--freeze is about a live process"),
    (("heap", "{}", "--freeze"), "--freeze is about a live process"),
    (("heap", "{}", "--ask"), "--ask is about a live process"),
    (("show", "{}", "--watch", "1"), "--watch is about a live process"),
    (("who", "{}", "heap", "--source", "procfs"), "--source is about a live process"),
    (("pages", "{}", "--vma", "no such"), "no VMA is called"),
    (("show", "{}:17"), "no process of"),
)


def test_what_it_does_not_have_is_one_sentence(tmp_path: Path) -> None:
    with start("plain", stopped=True) as running:
        path = recorded(running.pid, tmp_path / "a.pagewalk")
    for words, says in REFUSED:
        ran = pagewalk_here(*(word.format(path) for word in words))
        assert ran.code in (1, 2) and ran.out == "" and ran.err.count("pagewalk: ") == 1, words
        assert says in ran.err.partition("\n")[0], words


def test_anybody_can_read_it_where_there_is_no_proc(anybodys: Path) -> None:
    """What is not mounted cannot be asked: neither /proc nor /sys, by a user without rights."""
    path = anybodys / "a"
    with start("fork_three", stopped=True) as running:
        recorded(running.pid, path, "--smaps", "--heap", "--cache", "--physical")
    os.chown(path, NOBODY, NOBODY)
    empty = ("mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec " + " ".join(AS_NOBODY)
             + ' "$@"')
    for words in (*COMMANDS, ("heap",), ("maps", "--cache")):
        command = (*PAGEWALK, *words, path, "-f", "json")
        ran = run("unshare", "--mount", "sh", "-c", empty, "sh", *command)
        assert document(ran, words[0]) == said(*words, path), words
    assert sys.executable in PAGEWALK


def test_a_user_s_recording_has_the_kernels_own_totals(anybodys: Path) -> None:
    """Without --smaps too: what hides frames leaves no other PSS."""
    path = anybodys / "a"
    with start("nobody", stopped=True) as running:

        def look() -> None:
            before = document(pagewalk("show", running.pid, "-f", "json", before=AS_NOBODY), "show")
            pagewalk("record", running.pid, "-o", path, before=AS_NOBODY)
            found = said("show", path)
            assert found["totals"] == before["totals"] and "pss" in found["from_kernel"]

        look_again(look)


def test_page_tables_are_what_the_kernel_counts(tmp_path: Path) -> None:
    """Looking back at shmem swap walks again: that must not count."""
    for name in ("plain", "swap_mixed"):
        with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
            path = recorded(running.pid, tmp_path / "a")
            status = Path(f"/proc/{running.pid}/status").read_text()
        (kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmPTE:")]
        rows = said("query", path, "SELECT page_tables FROM processes")["rows"]
        assert rows == [{"page_tables": int(kib) << 10}]


def test_the_screen_says_where_and_when_it_was_recorded(tmp_path: Path) -> None:
    with start("plain", stopped=True) as running:
        path = recorded(running.pid, tmp_path / "a")
        live = [pagewalk_here(word, running.pid).out for word in ("show", "explain")]
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    for word, before in zip(("show", "explain"), live, strict=True):
        said = re.search(r"^recorded on (\S+) at (.*) UTC; read by", pagewalk_here(word, path).out,
                         re.MULTILINE)
        assert said and said[1] == os.uname().nodename and "recorded" not in before
        assert abs(made - datetime.fromisoformat(f"{said[2]}+00:00")) < timedelta(minutes=10)


def on_a_terminal(*words: object) -> str:
    """Return what a command says on stderr, which is a terminal."""
    terminal, end = pty.openpty()
    try:
        run = [sys.executable, "-m", "pagewalk", *map(str, words)]
        subprocess.run(run, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=end,
                       check=False)
        os.write(end, b"\4")  # so that there is something to read
        return os.read(terminal, 1 << 16).decode()
    finally:
        os.close(end)
        os.close(terminal)


def test_a_screen_that_does_not_say_when_it_was_recorded_gets_a_note(tmp_path: Path) -> None:
    with start("plain", stopped=True) as running:
        path = tmp_path / "a"
        assert pagewalk_here("record", running.pid, "--ram", "-o", path).code in (0, 3)
        live = on_a_terminal("maps", running.pid)
    note = f"{path} was recorded on {os.uname().nodename} at 20"
    for words in (("maps", path), ("pages", path, "--limit", 1), ("share", path), ("ram", path),
                  ("processes", path), ("top", path, "--once"), ("overview", path),
                  ("cgroups", path)):
        assert on_a_terminal(*words).count(note) == 1, words
        assert pagewalk_here(*words).err.count(note) == 1, words  # in a pipe too
    for words in (("show", path), ("explain", path), ("maps", path, "--format", "json"),
                  ("maps", path, "--quiet")):
        assert "was recorded on" not in on_a_terminal(*words), words
    assert "was recorded on" not in live
    assert pagewalk_here("maps", path, "--quiet").err == ""


def test_every_document_of_a_recording_is_in_the_manual(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "recording.md"
    explained = set(re.findall("`([^`\n]+)`", page.read_text().partition("## `document`")[2]))
    with start("plain", stopped=True) as running:
        path = recorded(running.pid, tmp_path / "a", "--smaps", "--heap", "--cache", "--swap-users",
                        "--ram", "--physical")
    with open_recording(str(path)) as recording:
        found = {name for part in recording.parts("document", ("name",))
                 for name in part.texts("name")}
    assert {"process", "set", "heap", "cache"} <= found <= explained


def test_the_name_of_a_host_obeys_no_terminal(tmp_path: Path) -> None:
    with start("plain", stopped=True) as running:
        file = pq.ParquetFile(recorded(running.pid, tmp_path / "a"))
    told = json.loads(file.metadata.metadata[b"pagewalk"])
    path = tmp_path / "b"
    with pq.ParquetWriter(path, file.schema_arrow.remove_metadata()) as writer:
        for at in range(file.num_row_groups):
            writer.write_table(file.read_row_group(at))
        writer.add_key_value_metadata({"pagewalk": json.dumps(told | {"host": "a\x1b[2J\nb"})})
    for words in (("show", path), ("explain", path)):
        shown = pagewalk_here(*words)
        assert shown.code in (0, 3) and "\x1b" not in shown.out
        assert re.search(r"^recorded on a\S+2J\S*b at ", shown.out, re.MULTILINE)
    note = on_a_terminal("maps", path)
    assert re.search(r" was recorded on a\S+2J\S*b at 20", note) and "\x1b" not in note
