"""Wrong targets, vanishing targets, odd names, full disks: one clear sentence, the right code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import pagewalk as library
from pagewalk.model.errors import ProcessGone
from pagewalk.proc.freeze import send
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import working_sources
from tests.live.command import PAGEWALK, begin, end, one_sentence, pagewalk, pagewalk_here, run
from tests.live.inside import clone_with_pid
from tests.targets import asleep, start

pytestmark = pytest.mark.live

RUNS = 20000  # about 1.2 MB of text: more than a pipe or a tiny disk holds
PATIENCE = 120.0
PF_KTHREAD = 0x00200000  # include/linux/sched.h
SOURCES = working_sources()


@contextmanager
def program(name: str, folder: Path, count: int = 1) -> Iterator[list[int]]:
    """Run sleep(1) under another name, ``count`` times; yields the pids."""
    copy = folder / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", copy)
    running = [subprocess.Popen([copy, "3600"]) for _ in range(count)]
    try:
        for process in running:
            asleep(process.pid, name)
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait(PATIENCE)


def own(name: str) -> str:
    """Return a name that no process of another test run has."""
    return f"{os.getpid()}{name}"


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# ---- invalid targets


@pytest.mark.parametrize("command", ["show", "maps", "pages", "explain"])
def test_no_such_pid(command: str) -> None:
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    ran = pagewalk(command, nobody)
    assert ran.code == 5
    assert one_sentence(ran) == f"process {nobody} does not exist"


@pytest.mark.parametrize("text", ["0", "4294967296", "9" * 30, "+-5", "²", "no such name", ""])
def test_not_a_process(text: str) -> None:
    ran = pagewalk("show", text)
    assert ran.code == 2
    assert f"'{text}'" in one_sentence(ran)


def test_negative_pid() -> None:
    ran = pagewalk("show", "--", "-1")
    assert (ran.code, one_sentence(ran)) == (2, "'-1' is not a valid pid")


def test_a_name_of_two_lists_both(tmp_path: Path) -> None:
    name = own("twins")
    with program(name, tmp_path, 2) as pids:
        ran = pagewalk("show", name)
    first, *rest = ran.err.splitlines()
    assert (ran.code, ran.out) == (2, "")
    assert first == (f"pagewalk: 2 processes are called '{name}'; give one pid, or the name to"
                     " pagewalk share:")
    assert [int(line.split()[0]) for line in rest] == sorted(pids)


def test_a_name_of_one_is_enough(tmp_path: Path) -> None:
    name = own("single")
    with program(name, tmp_path) as (pid,):
        ran = pagewalk(name, "--format", "json")
    assert ran.code == 0
    assert ran.json["process"] == {"pid": pid, "name": name, "exe": f"{tmp_path}/{name}"}


def kernel_threads() -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if int(stat[6]) & PF_KTHREAD:
                found.append(int(pid))
    return found


@pytest.mark.skipif(not Path("/proc/2/stat").exists(), reason="a pid namespace has no kthreads")
def test_kernel_thread() -> None:
    first = min(kernel_threads())
    name = Path(f"/proc/{first}/comm").read_text().removesuffix("\n")
    for target in (first, name):
        ran = pagewalk("show", target)
        assert ran.code == 1
        says = f"process {first} ({name}) is a kernel thread: it has no address space"
        assert one_sentence(ran) == says


def test_zombie() -> None:
    with start("zombie") as running:
        ran = pagewalk("show", running.facts["zombie"]["pid"])
    assert ran.code == 1
    assert "is a zombie" in one_sentence(ran)


def test_the_main_thread_has_exited_and_others_live() -> None:
    with start("leader_dead") as running:
        ran = pagewalk("maps", running.pid, "--format", "json")
        region = running.facts["memory"]
    assert ran.code == 0, ran.err
    (row,) = [vma for vma in ran.json["vmas"] if int(vma["start"], 16) == region["start"]]
    assert row["anon"] == region["anon"] * PAGE
    assert ran.json["process"]["pid"] == running.pid


def test_a_thread_means_its_process() -> None:
    with start("threads", stopped=True) as running:
        threads = sorted(int(entry) for entry in os.listdir(f"/proc/{running.pid}/task"))
        ran = pagewalk("show", threads[-1], "--format", "json")
        whole = pagewalk("show", running.pid, "--format", "json")
    assert threads[-1] != running.pid
    assert ran.json["process"]["pid"] == running.pid
    assert ran.json["totals"]["rss"] == whole.json["totals"]["rss"]


def test_as_many_vmas_as_the_kernel_allows() -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    count = min(60000, limit - 1000)
    with start("vmas", count, stopped=True) as running:
        ran = pagewalk("maps", running.pid, "--format", "json")
        # not VmRSS: up to 6.17 that counter lags
        rollup = kernel_says.read_rollup(running.pid)
    assert ran.code == 0, ran.err
    assert len(ran.json["vmas"]) >= count
    assert ran.json["totals"]["rss"] == rollup["Rss"] << 10


# ---- targets that vanish in mid-walk


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", ["exit", "exec"])
def test_a_target_that_vanishes_in_mid_walk_is_gone(how: str, source: str) -> None:
    with start("runs", RUNS) as running:
        walked = library.walk(running.pid, source=source)
        pages = iter(walked)
        assert len(next(pages)) > 0
        running.tell(how)
        with pytest.raises(ProcessGone) as caught:
            list(pages)
    assert caught.value.pid == running.pid
    assert caught.value.exit_code == 5
    assert not walked.outcome.done


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", ["exit", "exec"])
def test_the_command_says_so_after_its_output_so_far(how: str, source: str) -> None:
    with start("runs", RUNS) as running:
        process = begin("pages", running.pid, "--source", source)
        assert process.stdout is not None
        process.stdout.readline()
        running.tell(how)
        ran = end(process)
    assert ran.code == 5
    says = rf"pagewalk: process {running.pid} [^\n]*(ended|exited|exec)[^\n]*\n"
    assert re.fullmatch(says, ran.err)


@pytest.mark.parametrize("source", SOURCES)
def test_a_reused_pid_is_never_walked(source: str) -> None:
    with start("plain") as running:
        held = library.open_process(running.pid, source)
        try:
            running.tell("exit")
            stranger = clone_with_pid(running.pid, "sleep", "3600")
            try:
                asleep(stranger, "sleep")
                with pytest.raises(ProcessGone):
                    library.table(held)
                assert held.live is not None
                with pytest.raises(ProcessGone):
                    held.live.target.state()
                with pytest.raises(ProcessGone):
                    send(held.live.target, signal.SIGSTOP)
                assert kernel_says.read_status(stranger)["State"][0] != "T"
                # From now on, walking by number walks the new process.
                with library.walk(stranger, source=source) as walked:
                    assert walked.name == "sleep"
            finally:
                os.kill(stranger, signal.SIGKILL)
                os.waitpid(stranger, 0)
        finally:
            library.close(held)


# ---- names


ODD = ["two  words", "new\nline", "gone (deleted)", "\x1b[31mred\x07", "back\\012slash", "ünï©ode"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_found_and_cannot_drive_the_terminal(name: str, tmp_path: Path) -> None:
    name = own(name)
    with program(name, tmp_path) as (pid,):
        comm = name.encode()[:15].decode(errors="ignore")
        found = pagewalk("show", comm, "--format", "json")
        screens = [pagewalk_here(name, pid) for name in ("show", "maps", "explain")]
    assert found.code == 0, found.err
    assert found.json["process"]["pid"] == pid
    assert found.json["process"]["exe"] == f"{tmp_path}/{name}"
    for screen in screens:
        assert screen.out
        assert all(c.isprintable() or c == "\n" for c in screen.out)


def test_errors_cannot_drive_the_terminal(tmp_path: Path) -> None:
    with program("\x1b[31mred", tmp_path, 2):
        ran = pagewalk("show", "\x1b[31mred")
    assert ran.code == 2
    assert "\\x1b[31mred" in ran.err and "\x1b" not in ran.err


def test_vmas_with_odd_names_are_the_right_files() -> None:
    with start("names", stopped=True) as running:
        ran = pagewalk("maps", running.pid, "--format", "json")
        by_start = {vma.start: vma for vma in kernel_says.read_maps(running.pid)}
    names = {int(vma["start"], 16): vma["name"] for vma in ran.json["vmas"]}
    for fact in running.facts.values():
        # The kernel writes a newline as \012 and nothing else (seq_file, mangle_path).
        theirs = by_start[fact["start"]].name
        assert names[fact["start"]].replace("\\012", "\n") == theirs.replace("\\012", "\n")


# ---- output


def test_a_reader_that_stops_reading_is_not_an_error() -> None:
    with start("runs", RUNS) as running:
        pipeline = ["bash", "-c", 'set -o pipefail; "$@" | head -1', "bash"]
        ran = run(*pipeline, *PAGEWALK, "pages", running.pid, "--format", "log")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"VA:[0-9a-f]{16} .*\n", ran.out)


@pytest.mark.parametrize("redirect", [">&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["show", "maps", "pages", "doctor"])
def test_output_that_cannot_be_written(command: str, redirect: str) -> None:
    with start("plain") as running:
        target = [] if command == "doctor" else [running.pid]
        ran = run("sh", "-c", f'exec "$@" {redirect}', "sh", *PAGEWALK, command, *target)
    assert ran.code == 1
    assert re.search("closed|No space left on device", one_sentence(ran))


def test_closed_stderr_does_not_mix_errors_into_the_data() -> None:
    ran = run("sh", "-c", 'exec "$@" 2>&-', "sh", *PAGEWALK, "show", "no such name")
    assert (ran.code, ran.out, ran.err) == (2, "", "")


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs of 64 KiB."""
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    with start("runs", RUNS) as running, tiny_disk(tmp_path) as disk:
        old = disk / "pages.txt"
        old.write_text("what was there")
        ran = pagewalk("pages", running.pid, "--output", old)
        assert os.listdir(disk) == ["pages.txt"]
        assert old.read_text() == "what was there"
    assert ran.code == 1
    assert "No space left on device" in one_sentence(ran)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_old_file_and_nothing_else(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    old = tmp_path / "pages.txt"
    old.write_text("what was there")
    with start("reservation", 1) as running:
        # A line for each page of a TiB: it is far from done when the signal comes.
        process = begin("pages", running.pid, "--format", "log", "--output", old)
        wait_for(lambda: len(os.listdir(tmp_path)) == 2)
        process.send_signal(number)
        ran = end(process)
    assert ran.code == code
    assert os.listdir(tmp_path) == ["pages.txt"]
    assert old.read_text() == "what was there"


def test_a_file_with_frames_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    out = tmp_path / "pages.json"
    out.write_text("old, and open to all")
    out.chmod(0o644)
    with start("plain") as running:
        ran = pagewalk("pages", running.pid, "--format", "json", "--output", out)
    assert (ran.code, ran.out) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_text().startswith('{"addr":"0x')


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with start("plain") as running:
        ran = pagewalk("show", running.pid, "--output", tmp_path / "no" / "where")
    assert ran.code == 1
    assert "No such file or directory" in one_sentence(ran)


@pytest.mark.parametrize("options", [(), ("--format", "log")])
def test_ctrl_c_in_mid_walk(options: tuple[str, ...]) -> None:
    with start("runs", RUNS) as running:
        process = begin("pages", running.pid, *options)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ran = end(process)
    assert ran.code == 130
    # On a terminal the line of the ^C comes first.
    assert ran.err.strip() == "pagewalk: interrupted; nothing was changed"


# ---- ranges


@pytest.mark.parametrize(
    "span, says",
    [
        ("1000-1000", "is empty"),
        ("2000-1000", "is empty"),
        ("0-0", "is empty"),
        ("0-10000000000000001", "exceeds 64 bits"),
        ("fffffffffffffffff-ffffffffffffffffff", "exceeds 64 bits"),
        ("ffffffffffffffff-10000000000000000", "no VMA"),
        ("0-1000", "no VMA"),
        ("1-2", "no VMA"),
        ("-1000-2000", "is not two hexadecimal addresses"),
        ("1000", "is not two hexadecimal addresses"),
        ("x-y", "is not two hexadecimal addresses"),
        ("", "is not two hexadecimal addresses"),
    ],
)
def test_absurd_ranges(span: str, says: str) -> None:
    with start("plain") as running:
        ran = pagewalk_here("pages", running.pid, f"--range={span}")
    assert ran.code == 2
    assert says in one_sentence(ran)


def test_a_range_is_extended_to_whole_pages() -> None:
    with start("plain", stopped=True) as running:
        first = running.facts["plain"]["start"]
        span = f"{first + PAGE - 1:#x}-{first + PAGE + 1:#x}"
        ran = pagewalk("pages", running.pid, "--range", span, "--format", "csv")
    assert ran.code == 0
    rows = [line for line in ran.out.splitlines() if re.match(r"(0x)?[0-9a-f]+,", line)]
    assert [int(row.split(",")[0], 16) for row in rows] == [first, first + PAGE]


def test_the_whole_address_space() -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk("pages", running.pid, "--range", "0-10000000000000000", "--format", "csv")
        whole = pagewalk("pages", running.pid, "--format", "csv")
    assert ran.code == whole.code == 0
    # Address, size and state: other columns have bits that the kernel changes on its own.
    rows = [[line.split(",")[:3] for line in text.splitlines()] for text in (ran.out, whole.out)]
    assert rows[0] == rows[1]


def test_the_gate_can_be_selected() -> None:
    gates = [vma for vma in kernel_says.read_maps(os.getpid()) if vma.name == "[vsyscall]"]
    if not gates:
        pytest.skip("no vsyscall gate on this kernel")
    with start("plain") as running:
        span = f"{gates[0].start:x}-{gates[0].end:x}"
        ran = pagewalk("pages", running.pid, "--range", span, "--format", "json")
    assert ran.code == 0
    assert ran.json["addr"] == hex(gates[0].start)


@pytest.mark.parametrize(
    "options, says",
    [
        (("--source", "tea-leaves"), "no source is called 'tea-leaves'"),
        (("--budget", "0"), "--budget"),
        (("--format", "xml"), "xml"),
        (("--no-such-option",), "--no-such-option"),
    ],
)
def test_absurd_options(options: tuple[str, ...], says: str) -> None:
    ran = pagewalk_here("show", os.getpid(), *options)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


def test_the_interpreter_of_these_tests_can_be_walked() -> None:
    ran = pagewalk("show", os.getpid(), "--format", "json")
    assert ran.json["process"]["exe"] == os.path.realpath(sys.executable)
