"""The claims of experiments/RESULTS.md hold on new processes, and its files are consistent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from experiments.claims import CLAIMS, best, judge
from experiments.readers import scaled
from experiments.report import claims_json, number, spread
from experiments.runs import Process, Result, Run, load, measure
from experiments.targets import QUICK, TARGETS
from experiments.walks import working_sources
from experiments.writeup import write_up

import experiments
from experiments import keep
from tests.live.bracket import FIRM, look_again

FOLDER = Path(experiments.__file__).parent
CLAIMED: list[dict[str, Any]] = json.loads((FOLDER / "claims.json").read_text())
QUICK_TARGETS = [name for name, target in TARGETS.items() if target.letter in QUICK]
QUICK_CLAIMS = [row for row in CLAIMED if row["target"] in QUICK_TARGETS]


def named(row: dict[str, Any]) -> str:
    return f"{row['claim']}-{row['target']}"


# ---- on new processes


@pytest.fixture(scope="module")
def fresh() -> dict[str, Result]:
    """Run (a), (b), (e) and (f) completely, once: started, quiet, stopped, read by every reader."""
    _, sources = working_sources()
    assert {"procfs", "ebpf"} <= set(sources)
    return {name: look_again(partial(closed, name, sources), FIRM) for name in QUICK_TARGETS}


def closed(name: str, sources: list[str]) -> Result:
    """Measure once; others map and unmap the same pages, so a ledger may have to be repeated."""
    result = measure(name, 1, sources)
    for process in result.runs[0].processes:
        for source, walk in process.walks.items():
            assert [line for line in walk.ledger if line["unexplained"] != 0] == [], source
    return result


@pytest.mark.live
@pytest.mark.parametrize("row", QUICK_CLAIMS, ids=named)
def test_the_claim_holds_on_a_new_process(row: dict[str, Any], fresh: dict[str, Result]) -> None:
    try:
        as_claimed(row, fresh[row["target"]])
    except AssertionError:
        # Pages that others map may have moved between the claim's reader and the walk.
        _, sources = working_sources()
        look_again(lambda: as_claimed(row, closed(row["target"], sources)), FIRM)


def as_claimed(row: dict[str, Any], result: Result) -> None:
    (verdict,) = [v for v in judge([result]) if v.claim == row["claim"]]
    assert (verdict.held == verdict.runs) == (row["held"] == row["runs"]), row["sentence"]


@pytest.mark.live
@pytest.mark.parametrize("name", QUICK_TARGETS)
def test_the_ledger_closes(name: str, fresh: dict[str, Result]) -> None:
    for process in fresh[name].runs[0].processes:
        for walk in process.walks.values():
            assert walk.open == 0
            assert walk.lines == len(walk.ledger) > 20


# ---- on the stored results


def test_every_claim_is_in_the_file_for_each_of_its_targets() -> None:
    expected = {(claim.name, target) for claim in CLAIMS for target in claim.targets}
    assert {(row["claim"], row["target"]) for row in CLAIMED} == expected
    assert all(row["runs"] >= 5 for row in CLAIMED)


def test_the_results_follow_from_the_raw_figures() -> None:
    measured = keep.load(FOLDER / "raw")
    verdicts = judge(measured.results)
    assert (FOLDER / "claims.json").read_text() == claims_json(verdicts)
    assert (FOLDER / "RESULTS.md").read_text() == write_up(measured, verdicts)


def test_the_results_state_their_claims() -> None:
    text = (FOLDER / "RESULTS.md").read_text()
    for claim in CLAIMS:
        rows = [row for row in CLAIMED if row["claim"] == claim.name]
        held = f"{sum(row['held'] for row in rows)} of {sum(row['runs'] for row in rows)}"
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{claim.name}`: ")]
        assert claim.sentence in line and f"| {held} |" in line
    assert "not measured" not in text


def test_every_figure_exists_and_has_no_background() -> None:
    text = (FOLDER / "RESULTS.md").read_text()
    figures = sorted((FOLDER / "figures").glob("*.svg"))
    assert len(figures) >= 5
    for path in figures:
        assert f"](figures/{path.name})" in text
        root = ElementTree.parse(path).getroot()
        # The first patch is the figure's own background.
        (patch,) = [e for e in root.iter() if e.get("id") == "patch_1"]
        assert "fill: none" in patch[0].get("style", "")


# ---- claims can fail


def hello() -> Result:
    return load(FOLDER / "raw/hello.json")


def verdict_on(claim: str, change: Callable[[Process], Process]) -> bool:
    """Return the verdict on a claim for the last run of hello world, with its process changed."""
    result = hello()
    last = result.runs[-1]
    changed = Run(last.quiet, [change(process) for process in last.processes])
    (verdict,) = [v for v in judge([Result("hello", [changed])]) if v.claim == claim]
    return verdict.held == 1


def with_theirs(reader: str, word: str, more: int) -> Callable[[Process], Process]:
    def change(process: Process) -> Process:
        numbers = {**process.theirs[reader], word: process.theirs[reader][word] + more}
        return replace(process, theirs={**process.theirs, reader: numbers})

    return change


def with_ours(name: str, more: int) -> Callable[[Process], Process]:
    def change(process: Process) -> Process:
        walks = {
            source: replace(walk, totals={**walk.totals, name: (walk.totals[name] or 0) + more})
            for source, walk in process.walks.items()
        }
        return replace(process, walks=walks)

    return change


def with_open_line(process: Process) -> Process:
    return replace(process, walks={s: replace(w, open=1) for s, w in process.walks.items()})


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        ("size-has-the-gate", with_theirs("status", "VmSize", 4096)),
        ("size-has-the-gate", with_theirs("pmap", "Kbytes", -4096)),
        ("rss-is-vmrss", with_theirs("status", "VmRSS", 4096)),
        ("rss-is-smaps", with_theirs("smaps", "Rss", 4096)),
        ("rss-is-smaps", with_theirs("smaps_rollup", "Rss", 4096)),
        ("present-by-kind", with_ours("present", 4096)),
        ("present-by-kind", with_ours("zero", 4096)),
        ("small-is-mapped", with_ours("not_mapped", 2 << 20)),
        ("ledger-closes", with_open_line),
        ("states-add-up", with_ours("not_present", 4096)),
        ("tables-are-vmpte", with_theirs("status", "VmPTE", 4096)),
        ("tools-print-files", with_theirs("top", "RES", 1024)),
        ("psutil-counts-hugetlb", with_theirs("psutil", "uss", 4096)),
        # Three counters, each batch - 1 pages short on each CPU: no machine reaches 1 << 40.
        ("stat-lags", with_theirs("stat", "rss", 1 << 40)),
    ],
)
def test_a_claim_fails_when_a_number_is_off(
    claim: str, change: Callable[[Process], Process]
) -> None:
    assert verdict_on(claim, lambda process: process)
    assert not verdict_on(claim, change)


# ---- how figures are written


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([4096], "4"),
        ([4096, 4096, 4096], "4"),
        ([1024, 3072, 2048], "2 (1 to 3)"),
        ([1 << 30], "1 048 576"),
        ([], "n/a"),
    ],
)
def test_a_figure_is_written_with_its_spread(values: list[int], written: str) -> None:
    assert spread(values) == written


def test_small_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0, 1.2345, 99.96, 100.4, 12345.6)] == [
        "0", "1.23", "100", "100", "12 346"
    ]


def test_numbers_that_top_scales_are_read() -> None:
    assert [scaled(word) for word in ("2480", "1.5m", "16.0t")] == [
        2480 << 10, 3 << 19, 16 << 40
    ]


def test_a_figure_that_was_not_measured_says_so() -> None:
    measured = keep.load(FOLDER / "raw")
    part = replace(measured, results=[hello()], shown={})
    text = write_up(part, judge(part.results))
    assert "not measured" in text and "{" not in text


def test_raw_figures_contain_no_names_of_other_processes() -> None:
    machine = json.loads((FOLDER / "raw/machine.json").read_text())
    values = [value for row in machine["everyone"]["processes"] for value in row.values()]
    assert values and all(isinstance(value, int) for value in values)


def test_the_best_walk_is_one_of_page_tables() -> None:
    process = hello().runs[-1].processes[0]
    assert best(process).page_tables is not None
