"""Frames read by the programs, against frames read without them."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.kernel.frames import StructPages, open_frame_map
from pagewalk.kernel.programs.loader import Shortcuts
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.zero import find_zero_frames
from pagewalk.pagetables.format import Arch
from pagewalk.proc.frames import Frames
from pagewalk.proc.zones import read_memory
from tests.kernel.loops import needs_loops
from tests.live.bracket import Seen, settle
from tests.memory import PAGE

pytestmark = [
    pytest.mark.live,
    needs_loops,
]


def test_frames_without_a_word_are_read_as_before(
    kernel: Kernel, direct_map: DirectMap, mem_map: MemMap, arch: Arch, kpage: Frames
) -> None:
    # Frames from all over RAM, including large folios and frames that were never initialised: the
    # reader that condenses and the one that does not must agree wherever nothing moves.
    zero = find_zero_frames(kernel, direct_map, kpage.flags)
    frames = open_frame_map(kernel, mem_map, zero)
    quick = StructPages(frames, Shortcuts(kernel.btf, arch, frames.layout, mem_map))
    plain = StructPages(frames)
    assert quick.pay_for_condenser(1 << 30) is not None
    assert plain.pay_for_condenser(1 << 30) is None
    pfns = np.linspace(1, read_memory().ram_end // PAGE - 1, 1 << 16).astype(np.uint64)
    pfns[100] = zero.small

    def look() -> Seen[int]:
        nonlocal pfns
        once = np.zeros(len(pfns), bool)
        before, found, after = (frames.read(pfns, once) for frames in (plain, quick, plain))
        moved = (before[0] != after[0]) | (before[1] != after[1])
        differ = ~moved & ((found[0] != after[0]) | (found[1] != after[1]))
        how = {int(pfns[row]): (found[0][row], after[0][row], found[1][row], after[1][row])
               for row in np.flatnonzero(differ)}
        seen: Seen[int] = Seen(how, set(pfns[moved].tolist()))
        pfns = pfns[moved | differ]
        return seen

    assert settle(look) == {}
