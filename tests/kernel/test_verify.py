"""Struct pages decoded with a wrong layout: the comparison with /proc notices."""

from __future__ import annotations

import pytest

from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.kernel.verify import compare
from pagewalk.proc.frames import Frames
from tests.kernel.test_frames import frames_of
from tests.targets import start

pytestmark = pytest.mark.live


def test_a_wrong_layout_is_noticed(frames: FrameMap, kpage: Frames) -> None:
    # Takes bits 12 and up for bits 0 and up, as if the kernel had other flag numbers.
    layout = frames.layout._replace(low=frames.layout.high)
    with start("plain", stopped=True) as running:
        agreement = compare(frames._replace(layout=layout), kpage, frames_of(running))
    assert len(agreement.flags) > 100
    layout = frames.layout._replace(mapcount=frames.layout.refcount)
    with start("fork_cow", stopped=True) as running:
        agreement = compare(frames._replace(layout=layout), kpage, frames_of(running))
    assert len(agreement.mapcount) > 100
