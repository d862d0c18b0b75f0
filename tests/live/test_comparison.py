"""What docs/comparison.md says of other tools, where they are in Debian: by running them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import recipes
from tests.live.bracket import working_sources
from tests.live.command import Ran, pagewalk, run
from tests.recipes import MIB

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


def last_line(*words: object) -> list[str]:
    """Return the words of the last line that another tool prints."""
    return run(*words).out.splitlines()[-1].split()


def test_what_a_process_holds_without_mapping_it_is_in_no_other_tool() -> None:
    with recipes.full(Path()) as said:
        pid = said["PID"]
        totals = pagewalk(pid, "--format", "json").json["totals"]
        pmap = int(last_line("pmap", "-x", pid)[3])
        top = int(last_line("top", "-b", "-n1", "-p", pid)[5])
        rows = run("smem", "--columns", "pid pss").out.splitlines()
    smem = {row.split()[0]: int(row.split()[1]) for row in rows[1:]}[str(pid)]
    assert max(pmap, top, smem) << 10 < 40 * MIB < 160 * MIB < totals["freed"]


def test_who_says_that_rights_are_missing(tmp_path: Path) -> None:
    with recipes.full(tmp_path) as said:
        theirs = run(*NOBODY, "smem", "-t")
        shown = run(*NOBODY, "pmap", "-X", said["PID"])
        ours = run(sys.executable, "-m", "tests.live.dropped", "--user", 65534, said["PID"])
    assert theirs.code == 0 and len(theirs.out.splitlines()) < processes()
    assert shown.code == 1 and shown.err == "" and len(shown.out.splitlines()) <= 1
    assert ours == Ran(6, "", ours.err) and "permission denied" in ours.err


def processes() -> int:
    listed = subprocess.run(["pgrep", "."], check=True, capture_output=True).stdout
    return len(listed.splitlines())
