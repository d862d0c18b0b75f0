"""The huge zero page is known to a pagewalk that may not have huge pages itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.kmem.frames import StructPages
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.live import open_bpf
from pagewalk.kmem.machine import open_machine
from pagewalk.states import has
from tests.kernel_says import PAGE, PFN, read_pagemap, read_smaps, read_status_kib
from tests.live.bracket import working_sources
from tests.live.command import PAGEWALK, run
from tests.machine import prepared
from tests.targets import Running, start

pytestmark = pytest.mark.live

SOURCES = working_sources()
HUGE_PAGES = 8  # 16 MiB
SIZE = HUGE_PAGES * 512 * PAGE
WITHOUT = "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(41, 1, 0, 0, 0); "
# PR_SET_THP_DISABLE (include/uapi/linux/prctl.h): for this process and what it becomes.
BEFORE = (sys.executable, "-c", WITHOUT + "os.execv(sys.argv[1], sys.argv[1:])")

# Its own memory is walked before any huge zero page need exist; then what it is told to.
LONG_LIVED = WITHOUT + """
import pagewalk
pagewalk.by_vma(pagewalk.walk(os.getpid(), source=sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    from tests.live.bracket import compare
    found = compare(int(line), sys.argv[1])
    print(found.compared > 20, found.wrong, found.table.totals["huge_zero"], flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[Running]:
    with prepared("thp"), start("huge_zero", HUGE_PAGES, stopped=True) as running:
        yield running


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("options", [("show",), ("show", "--counts"), ("maps",), ("maps", "--all"),
                                     ("maps", "--counts")], ids=" ".join)
def test_each_command_counts_it_as_smaps_does(
    reader: Running, options: tuple[str, ...], source: str
) -> None:
    ran = run(*BEFORE, *PAGEWALK, *options, reader.pid, "--source", source, "--format", "json")
    # Who uses which swap slot is asked of every process, and one may not let itself be read.
    assert ran.code in ((0, 3) if "--all" in options else (0,)), ran.err
    totals = ran.json["totals"]
    assert totals["zero"] >= SIZE
    assert totals["huge_zero"] == SIZE
    assert totals["rss"] == sum(vma.fields["Rss"] for vma in read_smaps(reader.pid)) << 10
    assert totals["rss"] == read_status_kib(reader.pid)["VmRSS"] << 10
    if "--counts" not in options:
        assert totals["file"] < SIZE
        assert totals["file_huge"] == 0
        assert totals["special"] < SIZE


@pytest.mark.parametrize("source", SOURCES)
def test_explain_closes(reader: Running, source: str) -> None:
    ran = run(*BEFORE, *PAGEWALK, "explain", reader.pid, "--source", source, "--format", "json")
    assert ran.code == 0, ran.err
    assert [line for line in ran.json["ledger"] if line["unexplained"]] == []


@pytest.mark.parametrize("source", SOURCES)
def test_pages_calls_it_zero(reader: Running, source: str) -> None:
    begin = reader.facts["zeroes"]["start"]
    ran = run(*BEFORE, *PAGEWALK, "pages", reader.pid, "--source", source, "--where", "pmd",
              "--range", f"{begin:x}-{begin + SIZE:x}", "--format", "csv")
    assert ran.code == 0, ran.err
    header, *rows = [line.split(",") for line in ran.out.splitlines()]
    assert {row[header.index("state")] for row in rows} == {"zero"}
    assert sum(int(row[header.index("size")]) for row in rows) == SIZE


@pytest.mark.parametrize("source", SOURCES)
def test_who_was_there_before_it_knows_it_too(source: str) -> None:
    words = [sys.executable, "-c", LONG_LIVED, source]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as walker, prepared("thp"):
        assert walker.stdin is not None and walker.stdout is not None
        assert walker.stdout.readline() == "ready\n"
        for _ in range(2):
            with start("huge_zero", HUGE_PAGES, stopped=True) as running:
                print(running.pid, file=walker.stdin, flush=True)
                assert walker.stdout.readline() == f"True [] {SIZE}\n"
        walker.stdin.close()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    kernel = open_bpf()
    yield kernel
    kernel.close()


def test_who_may_not_ask_the_kernel_finds_it_all_the_same(
    kernel: Kernel, reader: Running
) -> None:
    begin = reader.facts["zeroes"]["start"]
    frame = int(read_pagemap(reader.pid, begin, begin + PAGE)[0]) & PFN
    frames = open_machine(kernel).frames
    assert isinstance(frames, StructPages)
    zero = replace(frames.frames.zero, kpageflags=None)
    alone = StructPages(frames.frames._replace(zero=zero))
    with start("thp", stopped=True) as running:
        other = running.facts["thp"]["start"]
        huge = int(read_pagemap(running.pid, other, other + PAGE)[0]) & PFN
        asked = np.array([frame, frame + 511, huge, huge + 1], np.uint64)
        once = np.zeros(len(asked), bool)
        told, _ = frames.read(asked, once)
        found, _ = alone.read(asked, once)
    assert found.tolist() == told.tolist()
    assert has(found, "zero_page").tolist() == [True, True, False, False]
