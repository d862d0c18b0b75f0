"""MADV_FREE pages can be asked for: by VMA, by page, and with the reason where nobody tells."""

from __future__ import annotations

import json

import pytest

from tests.kernel_says import read_smaps
from tests.live.bracket import working_sources
from tests.live.command import pagewalk
from tests.targets import start

pytestmark = pytest.mark.live
WORKING = [name for name in working_sources() if name != "procfs"]


@pytest.mark.parametrize("source", WORKING)
def test_columns_and_where_are_smaps(source: str) -> None:
    with start("lazyfree", stopped=True) as running:
        said = sum(vma.fields["LazyFree"] for vma in read_smaps(running.pid)) << 10
        assert said == 16 * 4096
        ran = pagewalk("maps", running.pid, "--columns", "anon,lazyfree", "-f", "json",
                       "--source", source)
        assert (ran.code, ran.json["totals"]["lazyfree"]) == (0, said)
        ran = pagewalk("pages", running.pid, "--where", "lazyfree", "-f", "json",
                       "--source", source)
        rows = [json.loads(line) for line in ran.out.splitlines()]
        assert (ran.code, sum(row["size"] for row in rows)) == (0, said)


def test_where_nobody_tells_the_reason_is_told() -> None:
    with start("lazyfree", stopped=True) as running:
        ran = pagewalk("maps", running.pid, "--columns", "anon,lazyfree", "--source", "procfs")
        said = " ".join(ran.out.split())
        assert "lazyfree, vm_flags: the dirty and accessed bits are in the page tables" in said
        ran = pagewalk("pages", running.pid, "--where", "lazyfree", "--source", "procfs")
        assert (ran.code, ran.out) == (2, "")
        assert "--where lazyfree: source 'procfs' does not tell it" in ran.err
        ran = pagewalk("maps", running.pid, "--columns", "lazyfree", "--counts")
        assert (ran.code, ran.out) == (2, "")
