"""pages --vma and vtop accept the same VMA names, including odd ones, on real mappings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel_says import read_maps
from tests.live.bracket import working_sources
from tests.live.command import pagewalk

pytestmark = pytest.mark.live

# Maps a page of each: a deleted library, a memfd, names with blanks, a newline, and bytes that are
# not UTF-8, and two files with the same base name.
MAP = rb"""
import mmap, os, signal, sys
folder = os.fsencode(sys.argv[1])
kept = []
def keep(fd):
    os.truncate(fd, mmap.PAGESIZE)
    area = mmap.mmap(fd, mmap.PAGESIZE)
    area[0] = 1
    kept.append(area)
for name in (b"libdel.so", b"two words", b"new\nline", b"caf\xe9", b"x (deleted)", b"one/l.so",
             b"two/l.so"):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    keep(os.open(path, os.O_RDWR | os.O_CREAT))
os.unlink(os.path.join(folder, b"libdel.so"))
keep(os.memfd_create("jit"))
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture(scope="module")
def mapper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("names")
    program = folder / "map.py"
    program.write_bytes(b"# -*- coding: latin-1 -*-\n" + MAP)
    with subprocess.Popen([sys.executable, program, folder], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


NAMES = ["libdel.so", "memfd:jit", "two words", "new\nline", r"new\012line", "caf\udce9",
         "x (deleted)"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_both_commands_find_it(mapper: int, name: str) -> None:
    plain = name.replace(r"\012", "\n")
    (vma,) = [
        vma for vma in read_maps(mapper)
        if Path(vma.name.removesuffix(" (deleted)")).name == plain.removesuffix(" (deleted)")
    ]
    pages = pagewalk("pages", mapper, "--vma", name)
    assert pages.code == 0, pages.err
    assert pages.out.splitlines()[1].startswith(f"{vma.start:016x}")
    if "ebpf" in working_sources():
        told = pagewalk("vtop", mapper, name, "--format", "json")
        assert (told.code, told.json["addr"]) == (0, hex(vma.start))


def test_for_two_files_pages_shows_both_and_vtop_asks_which(mapper: int) -> None:
    both = [f"{vma.start:016x}" for vma in read_maps(mapper) if vma.name.endswith("/l.so")]
    ran = pagewalk("pages", mapper, "--vma", "l.so")
    assert [line.split()[0] for line in ran.out.splitlines()[1:]] == both
    if "ebpf" in working_sources():
        ran = pagewalk("vtop", mapper, "l.so")
        assert ran.code == 2
        assert "'l.so' could be any of" in ran.err


def test_an_unknown_name_is_one_sentence(mapper: int) -> None:
    ran = pagewalk("pages", mapper, "--vma", "nothing")
    assert (ran.code, ran.out) == (2, "")
    assert "--vma: no VMA is called 'nothing'; choose from: anon, " in ran.err
    assert ran.err.count("\n") == 1
