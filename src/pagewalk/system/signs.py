"""What tells kinds of memory besides the VMAs of a process."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from pagewalk.account.groups import may_be_go
from pagewalk.model.errors import NotPermitted
from pagewalk.proc.stacks import read_stack_pointers

if TYPE_CHECKING:
    from pagewalk.model.columns import U64, VMAs
    from pagewalk.sources import Source


def signs(source: Source, vmas: VMAs) -> tuple[U64, str | None]:
    """Return where the threads' stacks are, and which version of Go built the program.

    As far as we may know; the version only if it matters.
    """
    if source.recorded is not None:
        return source.recorded.pointers, source.recorded.built_by
    pointers = np.zeros(0, np.uint64)
    if source.live is None:
        return pointers, None
    with suppress(NotPermitted):
        pointers = read_stack_pointers(source.live.target)
    if not may_be_go(vmas, pointers):
        return pointers, None
    from pagewalk.heap.buildinfo import built_by

    return pointers, built_by(source.live.target)
