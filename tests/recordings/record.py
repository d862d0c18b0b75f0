"""Record one stopped process, as the walk and as smaps see it, into $VMTEST_OUTPUT.

For each kernel of recordings/*.npz, once; the files are kept:

    python -m vmtest run 6.1 --timeout 1200 --output tests/recordings -- \\
        .venv/bin/python -m tests.recordings.record
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import pagewalk
from pagewalk.model.columns import Pages, join
from tests.documents import ROOT
from tests.kernel_says import PAGE, smaps_text
from tests.live.bracket import look_again
from tests.recordings import HERE, PAGE_COLUMNS, VMA_COLUMNS

# A file that nobody else maps: vmtest needs it, but outside the guest.
FILE = "/bin/busybox"
CHECKOUT = str(ROOT)


def main() -> None:
    """Record the target of this folder."""
    os.sched_setaffinity(0, {0})  # the batches of a CPU are drained by what it does itself
    words = [sys.executable, str(HERE / "target.py"), FILE]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            columns = look_again(lambda: record(process.pid))
        finally:
            for pid in (said["child"], process.pid):
                os.kill(pid, signal.SIGKILL)
    path = Path(os.environ["VMTEST_OUTPUT"]) / f"{os.environ['VMTEST_KERNEL']}.npz"
    np.savez_compressed(path, regions=json.dumps(said["regions"]), **columns)


def record(pid: int) -> dict[str, Any]:
    """Return the columns of a walk and the text of smaps, the same before and after it."""
    before = smaps_text(pid)
    walk = pagewalk.walk(pid, Pages, source="ebpf", holes=True)
    pages = join(list(walk))
    assert smaps_text(pid) == before
    assert pages.pfn is not None
    # Which frame it was is nobody's business; that two pages have the same one is. (All are small:
    # a huge one would need as many numbers as it has pages.)
    assert (pages.size[pages.kflags != 0] == PAGE).all()
    pages.pfn[:] = np.unique(pages.pfn, return_inverse=True)[1]
    return {
        **{f"vma_{name}": getattr(walk.vmas, name) for name in VMA_COLUMNS},
        **{f"page_{name}": getattr(pages, name) for name in PAGE_COLUMNS},
        "release": os.uname().release,
        "names": json.dumps(walk.vmas.name).replace(CHECKOUT, "/pagewalk"),
        "counts_hwpoison": walk.outcome.counts_hwpoison,
        "smaps": np.frombuffer(before.replace(CHECKOUT.encode(), b"/pagewalk"), np.uint8),
    }


if __name__ == "__main__":
    main()
