"""The fixture and the marker, in real runs of pytest: what fails, and what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PATIENCE = 240.0
PLUGIN = "pagewalk.pytest_plugin"
# As a module, also where it is installed as an entry point.
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:pagewalk", "-p", PLUGIN, "-p",
          "no:cacheprovider", "--strict-markers")
MIB = 1 << 20
HEAD = "import os, subprocess, sys\nimport pytest\n\n"


def run(folder: Path, tests: str, *options: str, program: tuple[str, ...] = PYTEST) -> str:
    """Run ``tests`` in a pytest of their own, and return what it printed."""
    (folder / "test_them.py").write_text(HEAD + tests)
    ran = subprocess.run(
        [*program, "test_them.py", "-rA", "--junitxml=out.xml", *options], cwd=folder, text=True,
        capture_output=True, timeout=PATIENCE, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    assert "INTERNALERROR" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def counts(said: str) -> dict[str, int]:
    last = [line for line in said.splitlines() if re.search(r" in [\d.]+s", line)][-1]
    return {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", last)
            if word in ("passed", "failed", "error", "errors", "warning", "warnings")}


def properties(folder: Path) -> dict[str, dict[str, int]]:
    cases = ElementTree.parse(folder / "out.xml").getroot().iter("testcase")
    return {case.attrib["name"]: {one.attrib["name"]: int(one.attrib["value"])
                                  for one in case.iter("property")} for case in cases}


def test_what_takes_more_than_its_budget_fails(tmp_path: Path) -> None:
    said = run(tmp_path, """
def test_small(memory_budget):
    with memory_budget(uss="32M", rss="64M", swap=0):
        held = b"x" * (8 << 20)

def test_large(memory_budget):
    with memory_budget(uss="32M", swap=0):
        held = b"x" * (48 << 20)

held = []

@pytest.mark.memory_budget(pss="32M")
def test_marked():
    held.append(b"x" * (48 << 20))

@pytest.mark.memory_budget(pss="64M", uss=1 << 26)
def test_marked_and_small():
    held.append(b"x" * (48 << 20))
""")
    assert counts(said) == {"passed": 2, "failed": 2}
    assert re.search(r"memory budget exceeded: USS grew by at least \d+ KiB, [\d.]+ s after"
                     r" the block began; its budget is 32768 KiB", said)
    assert re.search(r"memory budget exceeded: PSS grew by", said)
    assert "other anonymous" in said and "MAPPING" in said
    assert "Traceback" not in said
    found = properties(tmp_path)
    assert found["test_small"]["pagewalk.uss.budget"] == 32 * MIB
    # Less what the process had for itself, and another one has begun to map meanwhile.
    assert 4 * MIB <= found["test_small"]["pagewalk.uss.peak_at_least"] < 32 * MIB
    assert 44 * MIB <= found["test_large"]["pagewalk.uss.peak_at_least"] < 64 * MIB
    assert 44 * MIB <= found["test_marked"]["pagewalk.pss.peak_at_least"] < 64 * MIB


def test_what_was_there_before_does_not_count_unless_asked_for(tmp_path: Path) -> None:
    said = run(tmp_path, """
before = b"x" * (64 << 20)

def test_grows_by_little(memory_budget):
    with memory_budget(uss="32M", rss="32M"):
        pass

def test_is_large(memory_budget):
    with memory_budget(uss="32M", whole=True):
        pass
""")
    assert counts(said) == {"passed": 1, "failed": 1}
    assert re.search(r"memory budget exceeded: USS was at least \d{5,} KiB", said)


def test_a_peak_that_is_gone_at_the_end_is_seen(tmp_path: Path) -> None:
    # By VmHWM even without a thread; of the others, what the thread sees.
    said = run(tmp_path, """
def test_rss(memory_budget):
    with memory_budget(rss="64M", every=None):
        held = b"x" * (128 << 20)
        del held

def test_uss(memory_budget):
    with memory_budget(uss="64M", every=0.001) as block:
        held = b"x" * (128 << 20)
        looks = block.seen.looks
        while block.seen.looks < looks + 2:
            pass
        del held
""")
    assert counts(said) == {"failed": 2}


def test_a_peak_that_no_look_saw_is_a_warning(tmp_path: Path) -> None:
    said = run(tmp_path, """
@pytest.mark.memory_budget(uss="64M", every=None)
def test_marked():
    held = b"x" * (128 << 20)
    del held
""")
    assert counts(said) == {"passed": 1, "warning": 1}
    assert re.search(r"cannot tell whether the memory budget was kept: no look saw more than \d+"
                     r" KiB of USS, whose budget is 65536 KiB, but between two looks RSS was \d+"
                     r" KiB higher than any saw", said)


def test_children_count_and_what_is_shared_counts_once(tmp_path: Path) -> None:
    said = run(tmp_path, """
CHILD = "import sys; held = b'x' * (48 << 20); print(flush=True); sys.stdin.readline()"

def test_child(memory_budget):
    with memory_budget(uss="32M"):
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1)
        child.stdout.readline()
    child.communicate()

def test_child_that_ended(memory_budget):
    with memory_budget(uss="32M"):
        subprocess.run([sys.executable, "-c", "pass"])

def test_forked(memory_budget):
    held, (end, last) = b"x" * (64 << 20), os.pipe()
    with memory_budget(uss="48M"):
        pids = [os.fork() for _ in range(1)]
        if not pids[0]:
            os.close(last)
            os.read(end, 1)
            os._exit(0)
    os.close(last)
    os.waitpid(pids[0], 0)
""", "-W", "ignore::DeprecationWarning")
    try:
        assert counts(said) == {"passed": 2, "failed": 1}
    finally:
        (tmp_path / "test_them.py").unlink()
    assert re.search(rf"^ *\d+ .* {re.escape(sys.executable[:50])}", said, re.M)  # the child


def test_a_failure_of_the_test_goes_first(tmp_path: Path) -> None:
    said = run(tmp_path, """
@pytest.mark.memory_budget(uss="1M")
def test_it():
    held = b"x" * (16 << 20)
    assert len(held) == 1, "this is what failed"
""")
    assert counts(said) == {"failed": 1} and "this is what failed" in said
    assert "memory budget exceeded" not in said
    assert properties(tmp_path)["test_it"]["pagewalk.uss.peak_at_least"] >= 12 * MIB


def test_a_budget_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    said = run(tmp_path, """
@pytest.mark.parametrize("limits", [{}, {"freed": "1M"}, {"uss": "lots"}, {"uss": -1}])
def test_it(memory_budget, limits):
    with memory_budget(**limits):
        pass
""")
    assert counts(said) == {"failed": 4}
    for sentence in (
        "a memory budget needs one of uss, pss, rss, swap",
        "a memory budget has no 'freed': it takes uss, pss, rss, swap, and whole and every; what"
        " page frames alone tell, as what is held or freed, cannot have one",
        "'lots' is not a size; give bytes, or a number with K, M, G or T", "'-1' is not a size",
    ):
        assert sentence in said
    assert "pytest_plugin.py" not in said


def test_a_typo_in_the_marker_is_a_sentence(tmp_path: Path) -> None:
    said = run(tmp_path, """
@pytest.mark.memory_budget(us="1M")
def test_misspelt():
    pass

@pytest.mark.memory_budget("1M")
def test_unnamed():
    pass

@pytest.mark.memory_budget(uss="1M", evry=0.1)
def test_option():
    pass

@pytest.mark.memory_budget(uss="bad")
def test_size():
    pass

@pytest.mark.memory_budget(rss=200)
def test_unit():
    pass
""")
    assert counts(said) == {"failed": 5}
    for sentence in ("a memory budget has no 'us': it takes uss, pss, rss, swap, and whole and",
                     "memory_budget takes its limits by name, such as uss='1M'",
                     "a memory budget has no 'evry'",
                     "memory_budget(uss='bad'): 'bad' is not a size",
                     "memory_budget(rss=200): a budget of '200' is less than a page"):
        assert sentence in said
    whole, _, _ = said.partition("short test summary")  # which has each of them again
    assert whole.count("'bad' is not a size") == 1 and "another exception" not in said
    assert "pytest_plugin.py" not in said and "own_budget.py" not in said


def test_what_was_there_before_is_not_in_what_a_failure_shows(tmp_path: Path) -> None:
    said = run(tmp_path, """
before = b"x" * (200 << 20)

def test_grows(memory_budget):
    with memory_budget(uss="32M"):
        held = b"x" * (48 << 20)
""")
    assert counts(said) == {"failed": 1}
    shown = said[said.index("more than when the block began:"):]
    shown = shown[:shown.index("PASSES") if "PASSES" in shown else shown.index("short test")]
    amounts = [int(number) << 10 for number in re.findall(r"(?m)^ *(-?\d+) +-?\d+ +-?\d+ +-?\d+  ",
                                                          shown)]
    assert 48 * MIB <= max(amounts) < 64 * MIB, shown
    assert re.search(r"what grew, [\d.]+ s later", shown)


def test_tests_that_do_not_ask_for_it_import_nothing(tmp_path: Path) -> None:
    said = run(tmp_path, """
def test_it():
    loaded = {name for name in sys.modules if name.startswith("pagewalk")}
    assert loaded == {"pagewalk", "pagewalk.pytest_plugin"}
    assert "numpy" not in sys.modules

def test_that(memory_budget):
    with memory_budget(uss="1G"):
        pass
    assert "numpy" not in sys.modules
""")
    assert counts(said) == {"passed": 2}


def test_the_marker_is_known(tmp_path: Path) -> None:
    said = run(tmp_path, "", "--markers")
    assert "@pytest.mark.memory_budget(uss=SIZE" in said


def test_it_is_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"pagewalk": PLUGIN}
