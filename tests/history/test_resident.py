"""Locking our own memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pagewalk.proc.rights import effective, in_initial_user_namespace

CAP_IPC_LOCK = 14  # include/uapi/linux/capability.h
PROGRAM = """
import re
from pagewalk.history.resident import lock_memory
print(lock_memory(), int(re.search(r"VmLck:\\s*(\\d+)", open("/proc/self/status").read())[1]))
"""


def test_what_is_in_ram_stays_there_or_we_may_not() -> None:
    # in a process of its own: it cannot be undone for a part
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True,
                         text=True)
    locked, kib = ran.stdout.split()
    assert (locked == "True") == (int(kib) > 0)
    status = Path("/proc/self/status").read_bytes()
    if effective(status) >> CAP_IPC_LOCK & 1 and in_initial_user_namespace():
        assert locked == "True"
