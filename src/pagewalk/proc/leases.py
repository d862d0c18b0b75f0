"""Leases on files (F_SETLEASE in fcntl(2)): whoever opens such a file disturbs who has it."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from pagewalk.proc.files import read_bytes

LEASE = re.compile(rb"\d+: LEASE +\w+ +WRITE ")  # lock_get_status, fs/locks.c


def leased(told: os.stat_result) -> bool:
    """Return whether somebody has a lease on a file that they are to be the only one to open.

    Whoever opens it makes the kernel send them a signal. /proc/locks shows the device of the file
    system below an overlay: so any file of that inode counts. It does not show those of processes
    in other PID namespaces.
    """
    place = f":{told.st_ino} ".encode()
    with suppress(OSError):
        return any(place in line and LEASE.match(line)
                   for line in read_bytes("/proc/locks").split(b"\n"))
    return False
