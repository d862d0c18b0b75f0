"""Redo the report's experiments: python -m experiments [--only a,b,e,f] [--runs 5] [--setup]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.report import Measured

HERE = Path(__file__).parent


def main() -> int:
    """Run the requested experiments; the exit code is 4 if a claim does not hold, 1 on failure."""
    options = parser().parse_args()
    if options.setup:
        from experiments import machine

        if code := machine.setup():
            return code
    if options.report:
        from experiments import keep

        return write(keep.load(HERE / "raw"), HERE)
    if os.geteuid() != 0:
        print("experiments: page frames are visible to root only; run as root", file=sys.stderr)
        return 1
    from experiments import keep
    from experiments.causes import SHOWN
    from experiments.targets import TARGETS

    letters = sorted({target.letter for target in TARGETS.values()})
    if unknown := sorted(set(options.only) - set(letters)):
        print(f"experiments: no experiment {', '.join(unknown)}; choose from {', '.join(letters)}",
              file=sys.stderr)
        return 2
    names = [n for n, t in TARGETS.items() if not options.only or t.letter in options.only]
    measured = measure(names, [] if options.only else list(SHOWN), options.runs)
    folder = options.output or (None if options.only else HERE)
    if folder is None:
        return tell(measured)
    keep.save(measured, folder / "raw")
    return write(measured, folder)


def measure(names: Sequence[str], causes: Sequence[str], runs: int) -> Measured:
    """Run the targets, read every process on the machine, and show the causes at work."""
    from subprocess import SubprocessError

    from experiments import machine
    from experiments.causes import SHOWN
    from experiments.everyone import read_everyone
    from experiments.report import Measured
    from experiments.runs import measure as measure_target
    from experiments.walks import working_sources
    from pagewalk.model.errors import PagewalkError

    about = machine.describe()
    refused, sources = working_sources()
    results, failed = [], {}
    for name in names:
        note(name)
        try:
            results.append(measure_target(name, runs, sources))
        except (OSError, RuntimeError, SubprocessError, PagewalkError) as err:
            failed[name] = str(err)
            note(f"{name} could not be measured: {err}")
    note("every process of this machine")
    everyone = read_everyone(sources[-1])
    shown = {}
    for cause in causes:
        note(f"{cause}, shown")
        shown[cause] = SHOWN[cause]()
    return Measured(about, refused, failed, results, everyone, shown)


def tell(measured: Measured) -> int:
    """Print the claims that do not hold to stderr, and return the exit code."""
    from experiments.claims import judge

    verdicts = judge(measured.results)
    broken = [verdict for verdict in verdicts if verdict.held < verdict.runs]
    for verdict in broken:
        note(f"{verdict.claim} held in {verdict.held} of {verdict.runs} runs of {verdict.target}")
    note(f"{len(verdicts) - len(broken)} of {len(verdicts)} claims held")
    return 1 if measured.failed else 4 if broken else 0


def write(measured: Measured, folder: Path) -> int:
    """Write RESULTS.md, claims.json and the figures, and return the exit code of `tell`."""
    from experiments import figures
    from experiments.claims import judge
    from experiments.report import claims_json
    from experiments.writeup import write_up

    verdicts = judge(measured.results)
    (folder / "RESULTS.md").write_text(write_up(measured, verdicts))
    (folder / "claims.json").write_text(claims_json(verdicts))
    figures.draw(measured, folder / "figures")
    return tell(measured)


def note(text: str) -> None:
    print(f"experiments: {text}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    found = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    found.add_argument("--only", default=[], metavar="LETTERS",
                       type=lambda text: text.split(","),
                       help="only these experiments (a,b,e,f), which writes nothing without"
                            " --output")
    found.add_argument("--runs", type=int, default=5, metavar="N",
                       help="how often each target is started (default 5)")
    found.add_argument("--output", type=Path, metavar="FOLDER",
                       help="write there; a whole run writes to experiments/")
    found.add_argument("--report", action="store_true",
                       help="measure nothing: write the results again from the raw JSON")
    found.add_argument("--setup", action="store_true",
                       help="first install browsers, Java, PostgreSQL, QEMU, matplotlib (Debian)")
    return found


if __name__ == "__main__":
    sys.exit(main())
