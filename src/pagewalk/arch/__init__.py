"""The paging formats, by the machine's name (uname -m)."""

from __future__ import annotations

from pagewalk.arch.x86_64 import X86
from pagewalk.paging import Arch

ARCHES: dict[str, type[Arch]] = {
    X86.name: X86,
}
