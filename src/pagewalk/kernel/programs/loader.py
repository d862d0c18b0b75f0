"""The programs that save copying, loaded when they pay; a kernel may refuse them.

Looking up the functions that they call and verifying one takes some 30 ms. Each is loaded once it
would have saved that much on the pages so far, so that working without it cost no more.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from pagewalk.kernel.structs.btf import Btf
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.page_layout import Layout
from pagewalk.model.errors import SourceUnavailable
from pagewalk.pagetables.format import Arch

if TYPE_CHECKING:
    from pagewalk.kernel.programs.condense_pages import Condenser
    from pagewalk.kernel.programs.count_tables import TableCounter
    from pagewalk.kernel.programs.loops import Casts
    from pagewalk.kernel.programs.scan_frames import FrameScanner

# In pages: the counter saves 2 ns on each, the condenser 250, the scanner 40.
COUNTER_PAYS = 1 << 23
CONDENSER_PAYS = 1 << 17
SCANNER_PAYS = 1 << 19


class Shortcuts:
    """The programs that this kernel's verifier lets us load in addition to the reader; None where
    it does not, or where that does not pay yet."""

    def __init__(self, btf: Btf, arch: Arch, layout: Layout, mem_map: MemMap) -> None:
        self._btf, self._arch, self._layout, self._mem_map = btf, arch, layout, mem_map
        self._counted = self._condensed = 0

    def pay_for_counter(self, pages: int) -> TableCounter | None:
        """Count ``pages`` more that it would have served; load and return it once that pays."""
        self._counted += pages
        return self.loaded_counter if self._counted >= COUNTER_PAYS else None

    def pay_for_condenser(self, pages: int) -> Condenser | None:
        """Count ``pages`` more that it would have served; load and return it once that pays."""
        self._condensed += pages
        return self.loaded_condenser if self._condensed >= CONDENSER_PAYS else None

    def pay_for_scanner(self, frames: int) -> FrameScanner | None:
        """Load and return the scanner if that pays for one scan of ``frames``."""
        return self.loaded_scanner if frames >= SCANNER_PAYS else None

    @cached_property
    def _casts(self) -> Casts:
        from pagewalk.kernel.programs.loops import find_casts

        return find_casts(self._btf)

    @cached_property
    def loaded_counter(self) -> TableCounter | None:
        """Load the counter of whole tables."""
        from pagewalk.kernel.programs.count_tables import TableCounter

        with suppress(LookupError, OSError, SourceUnavailable):
            return TableCounter(self._casts, self._arch)
        return None

    @cached_property
    def loaded_condenser(self) -> Condenser | None:
        """Load the condenser of struct pages."""
        from pagewalk.kernel.programs.condense_pages import Condenser

        with suppress(LookupError, OSError, SourceUnavailable):
            return Condenser(self._casts, self._arch, self._layout, self._mem_map)
        return None

    @cached_property
    def loaded_scanner(self) -> FrameScanner | None:
        """Load the scanner of frames."""
        from pagewalk.kernel.programs.scan_frames import FrameScanner
        from pagewalk.kernel.structs.frame_layout import frame_layout

        with suppress(LookupError, OSError, SourceUnavailable):
            return FrameScanner(self._casts, frame_layout(self._btf), self._mem_map)
        return None
