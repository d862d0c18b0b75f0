"""The sources that read kernel memory, one for each reader. None takes a lock of the target.

ebpf runs one tiny program; it needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, and BTF. kcore reads
/proc/kcore, which needs CAP_SYS_RAWIO, CAP_SYSLOG and BTF. drgn, an optional package, reads one
address per call, so it is the slowest; it checks the others against a reader that is not ours.
"""

from __future__ import annotations

import os
from functools import cache

from pagewalk.kernel.open import open_bpf, open_kcore
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.proc.target import Target
from pagewalk.sources.kernel import KernelSource, open_process_memory


def open(name: str, target: Target, budget_ns: int) -> KernelSource:
    """Return source ``name`` of ``target``; raises SourceUnavailable with cause and remedy."""
    return open_process_memory(name, running(name), target, budget_ns)


def running(name: str) -> RunningKernel:
    """Return the kernel as read by source ``name``, opened once for all processes.

    A program takes some 50 ms to load. A forked child of ours opens its own kernel: it would share
    the memory for the program's answers, and descriptors are looked up in our own task.
    """
    return _opened_by(os.getpid(), name)


@cache
def _opened_by(pid: int, name: str) -> RunningKernel:
    del pid
    if name == "ebpf":
        return open_running(open_bpf(), loads=True)
    if name == "kcore":
        from pagewalk.kernel.readers.kcore import KcoreMemory

        return open_running(open_kcore(KcoreMemory()))
    from pagewalk.kernel.readers.drgn import open_drgn

    return open_running(open_kcore(open_drgn(), "drgn"))
