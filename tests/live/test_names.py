"""Every byte in every kind of name: no command fails, on that process or on another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

import pagewalk
from pagewalk.proc.processes import read_processes
from pagewalk.proc.swap import read_swaps
from pagewalk.proc.target import open_target
from pagewalk.sources import procfs
from pagewalk.sources.pagemap import HUGE_SIZE, TABLE_NS
from tests import kernel_says
from tests.live.bracket import working_sources
from tests.live.command import pagewalk_here
from tests.live.oddly_named import BYTES, NOBODY, WIDE
from tests.machine import IN_GUEST, alone
from tests.targets import start

pytestmark = pytest.mark.live

SOURCES = working_sources()
COMM = 15  # TASK_COMM_LEN - 1
EVERY_BYTE = BYTES + b"/"
NAMES = [
    *(EVERY_BYTE[at : at + COMM] for at in range(0, len(EVERY_BYTE), COMM)),
    WIDE, b"\xff", b"\n", b"\rVmPTE: 0 kB", b"\nVmPTE:\t0 kB", b"a) R 1 2 (b", b"9 kB",
]
COMMANDS = [
    ("show",), ("show", "--format", "json"), ("maps", "--format", "csv"), ("maps", "--all"),
    ("pages", "--format", "log"), ("explain",), ("explain", "--format", "json"), ("check",),
]


class Odd:
    """The two oddly named processes: ``pid`` changes its name, ``program`` has an odd argv[0]."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid, self.program = map(int, self.answer().split(" "))

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def call(self, name: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(name.hex() + "\n")
        self.process.stdin.flush()
        assert self.answer() == "ok\n"


@pytest.fixture(scope="module")
def odd() -> Iterator[Odd]:
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        os.chmod(folder, 0o755)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.oddly_named", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        try:
            yield Odd(process)
        finally:
            process.kill()
            process.communicate()


def fine(pid: int, *words: str) -> str:
    """Run a command on ``pid``; it must succeed, or be partial for a known reason."""
    ran = pagewalk_here(words[0], pid, *words[1:])
    assert (ran.code in (0, 3), ran.err) == (True, ""), ran
    return ran.out


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES, ids=bytes.hex)
def test_a_process_may_have_any_name(odd: Odd, name: bytes, source: str) -> None:
    odd.call(name)
    fine(odd.pid, "show", "--source", source)
    fine(odd.pid, "explain", "--source", source)
    opened = pagewalk.open_process(odd.pid, source)
    try:
        assert os.fsencode(opened.who.name) == name
    finally:
        pagewalk.close(opened)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("who", ["pid", "program"])
def test_every_command_works_when_every_name_is_odd(
    odd: Odd, who: str, command: tuple[str, ...]
) -> None:
    odd.call(b"\r\x0b\x0c\x1c\x85\xff\xe2\x80\xa8 \n) R 1")
    fine(getattr(odd, who), *command)


def test_vtop_names_the_mapping(odd: Odd) -> None:
    if SOURCES == ["procfs"]:
        pytest.skip("no source reads page tables here")
    for pid in (odd.pid, odd.program):
        assert pagewalk_here("vtop", pid, "stack-8").code == 0


@pytest.mark.parametrize("source", SOURCES)
def test_the_mappings_have_the_names_that_the_kernel_prints(odd: Odd, source: str) -> None:
    for pid in (odd.pid, odd.program):
        names = pagewalk.walk(pid, source=source).vmas.name
        printed = [vma.name for vma in kernel_says.read_maps(pid)]
        assert [name.replace(r"\012", "\n") for name in names] == printed
        # The newline in it is escaped, and the other bytes are not.
        odd_path = os.fsdecode(b"/" + BYTES + b"/" + WIDE + b"/" + BYTES)
        assert sum(name.endswith(odd_path) for name in printed) >= 1


def test_one_oddly_named_process_ends_no_command_about_another(odd: Odd) -> None:
    odd.call(NAMES[1])
    with start("plain", stopped=True) as running:
        ran = pagewalk_here("maps", running.pid, "--all", "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        # Counting the users of swap slots reads every process, and lists those it could not read.
        for pid in (odd.pid, odd.program):
            assert not re.search(rf"\b{pid}\b", ran.out)


@pytest.mark.skipif(IN_GUEST, reason="a guest has no disk")
def test_a_swap_file_may_have_any_name() -> None:
    # In a folder on a disk: swap files do not work on tmpfs.
    with alone(), tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = os.fsencode(folder) + b"/" + BYTES
        with open(path, "wb") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        os.chmod(path, 0o600)
        for tool in ("mkswap", "swapon"):
            subprocess.run([tool, path], check=True, capture_output=True, start_new_session=True)
        try:
            names = [os.fsencode(device.path) for device in read_swaps() or ()]
            with start("plain", stopped=True) as running:
                ran = [pagewalk_here(*words) for words in (("doctor",), ("show", running.pid))]
        finally:
            # In a session of its own: a Ctrl-C on the terminal must not interrupt it.
            words = ["swapoff", path]
            subprocess.run(words, check=True, capture_output=True, start_new_session=True)
    assert all(done.code in (0, 3) and done.err == "" for done in ran), ran
    # The kernel escapes these four, backslash first (swap_show, mm/swapfile.c).
    for byte in b"\\ \t\n":
        path = path.replace(bytes([byte]), b"\\%03o" % byte)
    assert path in names


def test_the_process_list_shows_them(odd: Odd) -> None:
    odd.call(NAMES[0])
    found = {process.pid: process for process in read_processes()}
    assert os.fsencode(found[odd.pid].name) == NAMES[0]
    assert os.fsencode(found[odd.program].argv0) == BYTES + b"/" + WIDE


def test_a_name_cannot_influence_the_window(odd: Odd) -> None:
    # The window depends on VmPTE: with few page tables it may be large. Forty tables fit in this
    # budget, and this process has more than four, below which it does not matter.
    budget = 40 * TABLE_NS
    assert kernel_says.read_status_kib(odd.pid)["VmPTE"] > 4 * 4
    for name in (b"python", b"\rVmPTE: 0 kB", b"\nVmPTE:\t0 kB", b"\x1cVmPTE:\t0 kB"):
        odd.call(name)
        target = open_target(odd.pid)
        source = procfs.open("procfs", target, budget)
        try:
            assert source.space.widest_window() == 40 * HUGE_SIZE
        finally:
            pagewalk.close(source)
