"""The kcore source: the real page tables of the live kernel, through /proc/kcore.

No lock of the target is taken, and no BPF is needed: CAP_SYS_RAWIO, CAP_SYSLOG and BTF are.
"""

from __future__ import annotations

import os
from functools import cache

from pagewalk.kernel.open import open_kcore
from pagewalk.kernel.readers.kcore import KcoreMemory
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.proc.target import Target
from pagewalk.sources.kernel import KernelSource, open_process_memory


def open(target: Target, budget_ns: int) -> KernelSource:
    """Return the kcore source of ``target``; raises SourceUnavailable with cause and remedy."""
    return open_process_memory("kcore", _opened_by(os.getpid()), target, budget_ns)


@cache
def _opened_by(pid: int) -> RunningKernel:
    # The running kernel, opened once for all targets, and again in a forked child of ours, because
    # descriptors are looked up in our own task.
    del pid
    return open_running(open_kcore(KcoreMemory()))
