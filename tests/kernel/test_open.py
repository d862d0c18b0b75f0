"""The running kernel, opened: which of its tasks we are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pagewalk.kernel.open import open_kcore
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.errors import SourceUnavailable

pytestmark = pytest.mark.live
INSIDE = """
import os
from contextlib import closing
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.structs.task import find_task
with closing(open_bpf()) as kernel:
    own = find_task(kernel, os.getpid())
    print(os.getpid(), own.pid, own.comm, own.address == kernel.current)
"""


def test_pids_are_those_of_the_callers_namespace() -> None:
    # In a PID namespace of its own the child is 1, and 1 must be itself, not the machine's init.
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", INSIDE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    comm = Path(sys.executable).resolve().name[:15]
    pid, found, name, same = done.stdout.split()
    assert (pid, found, same) == ("1", "1", "True")
    assert name in (comm, Path(sys.executable).name[:15])


def test_our_own_task_is_found_from_init_task(kernel: Kernel) -> None:
    # A core file does not say which task reads it: start from init_task, with a reader that knows.
    symbols = Path("/proc/kallsyms").read_text().splitlines()
    if any(line.endswith(" init_task") for line in symbols):
        assert open_kcore(kernel.memory).current == kernel.current
    else:
        with pytest.raises(SourceUnavailable, match=r"does not show init_task; .*KALLSYMS_ALL"):
            open_kcore(kernel.memory)
