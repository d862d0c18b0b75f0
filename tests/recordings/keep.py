"""Record a stopped process into a file that later versions must read, and what smaps says of it.

Once, with the first version whose recordings have to be read for ever; the files are kept:

    python -m vmtest run 6.1 --timeout 1200 --output tests/recordings -- \\
        .venv/bin/python -m tests.recordings.keep
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.kernel_says import parse_smaps, read_status_kib, smaps_text
from tests.live.bracket import look_again
from tests.live.command import pagewalk_here
from tests.targets import start

TARGET = "fork_three"


def main() -> None:
    """Record the target; the names in it are nobody's business."""
    where = Path(os.environ["VMTEST_OUTPUT"]) / os.environ["VMTEST_KERNEL"]
    with start(TARGET, stopped=True) as running:
        says = look_again(lambda: record(running.pid, where.with_name(f"{where.name}.parquet")))
    where.with_name(f"{where.name}.smaps.json").write_text(says)


def record(pid: int, path: Path) -> str:
    """Record a process, and return what smaps said before and after that, by address."""
    before = smaps_text(pid)
    ran = pagewalk_here("record", pid, "--scrub", "--quiet", "-o", path)
    assert ran.code == 0, ran.err
    assert smaps_text(pid) == before
    vmas = {f"{vma.start:#x}": vma.fields for vma in parse_smaps(before)}
    return json.dumps({"status": read_status_kib(pid), "vmas": vmas}, indent=0)


if __name__ == "__main__":
    main()
