"""Which machine this is, and since when it runs: what a recording says of where it was made."""

import os
import socket
from typing import NamedTuple

from pagewalk.proc.files import read_bytes


class Host(NamedTuple):
    """A machine: its name, the id of this boot (empty if /proc does not tell it), its kernel."""

    name: str
    boot: str
    kernel: str


def read_host() -> Host:
    """Return which machine this is."""
    try:
        boot = read_bytes("/proc/sys/kernel/random/boot_id").decode("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        boot = ""
    return Host(socket.gethostname(), boot, os.uname().release)
