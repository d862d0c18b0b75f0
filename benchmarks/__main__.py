"""Run the measures: python -m benchmarks [--only NAME]... [--quick] [--output FOLDER]."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError

from benchmarks import machine

HERE = Path(__file__).parent
# With an odd number of rounds the median is one of the samples.
FULL, QUICK = (9, 1), (3, 8)


def main() -> int:
    """Run the measures asked for; the exit code is 4 if a limit is exceeded, 1 on failure."""
    options = parser().parse_args()
    if options.setup:
        return machine.setup()
    if os.geteuid() != 0:
        print("benchmarks: page frames are visible to root only; run as root", file=sys.stderr)
        return 1
    from benchmarks.measures import MEASURES
    from benchmarks.report import table, write
    from benchmarks.rows import Plan, Row
    from pagewalk.model.errors import PagewalkError

    if unknown := sorted(set(options.only) - set(MEASURES)):
        print(f"benchmarks: no measure {', '.join(unknown)}; choose from {', '.join(MEASURES)}",
              file=sys.stderr)
        return 2
    about = machine.describe()
    plan = Plan(*(QUICK if options.quick else FULL))
    rows: list[Row] = []
    failed: list[str] = []
    for name in options.only or MEASURES:
        print(f"benchmarks: {name}", file=sys.stderr)
        try:
            rows += MEASURES[name](plan)
        except (PagewalkError, OSError, RuntimeError, CalledProcessError) as err:
            failed.append(name)
            rows.append(Row(name, "", "", missing=f"failed: {err}"))
    if plan.quick:  # the limits are meant for the sizes of a full run
        rows = [replace(row, limit=None) for row in rows]
    print(table(rows))
    folder = options.output
    if folder is None and not options.quick and not options.only:
        folder = HERE
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(rows, about, folder)
    if failed:
        return 1
    return 4 if any(row.met is False for row in rows) else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    found = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    found.add_argument("--only", action="append", default=[], metavar="NAME",
                       help="run this measure; may be given more than once")
    found.add_argument("--quick", action="store_true",
                       help="small targets, few rounds, no limits: only check that it works")
    found.add_argument("--output", type=Path, metavar="FOLDER",
                       help="write RESULTS.md and results.json there (a whole run writes them to"
                            " benchmarks/)")
    found.add_argument("--setup", action="store_true",
                       help="install a compiler, smem, atop and psutil (Debian, root); measure"
                            " nothing")
    return found


if __name__ == "__main__":
    sys.exit(main())
