"""The paging formats, by the machine's name (uname -m)."""

from __future__ import annotations

from pagewalk.arch import x86_64
from pagewalk.paging import Arch

ARCHES: dict[str, Arch] = {
    "x86_64": x86_64.X86_64,
}
