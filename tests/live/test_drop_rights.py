"""Open with rights, drop them, then walk, from a checkout that only its owner can read.

The other such tests (test_rights.py) import every module before. Here nothing may be left to
import, because nothing can be read any more.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import pagewalk
from tests.live.bracket import working_sources
from tests.live.command import run
from tests.machine import prepared
from tests.targets import start

pytestmark = pytest.mark.live

# The program in docs/permissions.md; {swap} and the like are read from software entries.
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import pagewalk
assert pagewalk.__file__.startswith(sys.argv[1])

source = pagewalk.open_process(int(sys.argv[2]), sys.argv[3])
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    os.listdir(sys.argv[1])
    raise SystemExit("the checkout can be read")
except PermissionError:
    pass
before = set(sys.modules)
counts = pagewalk.table(source, frames=False)
table = pagewalk.table(source)
for pages in pagewalk.walk(source, holes=True):
    assert len(pages)
outcome: pagewalk.Outcome = table.outcome
names = [getattr(pagewalk, name) for name in pagewalk.__all__]
late = sorted(set(sys.modules) - before)
assert not late, late
print(table.totals["pss"], table.totals["swap"], counts.totals["swap"])
pagewalk.close(source)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package, in a home directory of mode 0700."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(Path(pagewalk.__file__).parent, home / "src" / "pagewalk")
    shutil.rmtree(home / "src" / "pagewalk" / "__pycache__", ignore_errors=True)
    return home / "src"


@pytest.mark.parametrize("source", [*working_sources(), "auto"])
@pytest.mark.parametrize("name", ["plain", "swap_private", "swap_shmem", "uffd_wp"])
def test_a_walk_imports_nothing_after_the_rights_are_dropped(
    name: str, source: str, checkout: Path
) -> None:
    needs = {"uffd_wp": ("userfaultfd",)}.get(name, ("zram",) if "swap" in name else ())
    with prepared(*needs), start(name, stopped=True) as running:
        ran = run(sys.executable, "-c", PROGRAM, checkout, running.pid, source)
    assert (ran.code, ran.err) == (0, "")
    pss, swap, counted = ran.out.split()
    assert int(pss) > 0
    assert swap == counted
    if swap == "None":  # procfs needs a right for the swap of shmem
        assert name == "swap_shmem" and source == "procfs"
    else:
        assert (int(swap) > 0) == ("swap" in name)
