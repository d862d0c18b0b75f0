"""The paging formats, by the machine's name (uname -m)."""

from __future__ import annotations

from pagewalk.pagetables.arch.x86_64 import X86
from pagewalk.pagetables.format import Arch

ARCHES: dict[str, type[Arch]] = {
    X86.name: X86,
}
