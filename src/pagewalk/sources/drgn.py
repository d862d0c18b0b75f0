"""The drgn source: like kcore, with drgn as the reader of kernel memory (an optional extra).

It needs no debug symbols. drgn reads one address per call, so this is the slowest source; it exists
to check the others against a reader that is not ours.
"""

from __future__ import annotations

import os
from functools import cache

from pagewalk.kernel.open import open_kcore
from pagewalk.kernel.readers.drgn import open_drgn
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.proc.target import Target
from pagewalk.sources.kernel import KernelSource, open_process_memory


def open(target: Target, budget_ns: int) -> KernelSource:
    """Return the drgn source of ``target``; raises SourceUnavailable with cause and remedy."""
    return open_process_memory("drgn", _opened_by(os.getpid()), target, budget_ns)


@cache
def _opened_by(pid: int) -> RunningKernel:
    # As for kcore: a forked child of ours opens its own.
    del pid
    return open_running(open_kcore(open_drgn(), "drgn"))
