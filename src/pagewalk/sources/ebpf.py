"""The eBPF source: the real page tables of the live kernel, by one tiny reader program.

No lock of the target is taken. Needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, and BTF.
"""

from __future__ import annotations

import os
from functools import cache

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.proc.target import Target
from pagewalk.sources.kernel import KernelSource, open_process_memory


def open(target: Target, budget_ns: int) -> KernelSource:
    """Return the eBPF source of ``target``; raises SourceUnavailable with cause and remedy."""
    return open_process_memory("ebpf", running(), target, budget_ns)


def running() -> RunningKernel:
    """Return the running kernel, opened once for all processes: loading takes some 50 ms.

    A forked child of ours gets its own: otherwise it would share the memory for the answers.
    """
    return _opened_by(os.getpid())


@cache
def _opened_by(pid: int) -> RunningKernel:
    del pid
    return open_running(open_bpf(), loads=True)
