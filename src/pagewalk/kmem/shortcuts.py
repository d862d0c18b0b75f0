"""The programs that spare copying, loaded when they are first of use; a kernel may refuse them."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from pagewalk.btf import Btf
from pagewalk.errors import SourceUnavailable
from pagewalk.kmem.directmap import MemMap
from pagewalk.kmem.layout import Layout
from pagewalk.paging import Arch

if TYPE_CHECKING:
    from pagewalk.kmem.condenser import Condenser
    from pagewalk.kmem.counter import TableCounter
    from pagewalk.kmem.direct import Casts


class Shortcuts:
    """What this kernel's verifier lets us load beside the reader; None where it does not."""

    def __init__(self, btf: Btf, arch: Arch, layout: Layout, mem_map: MemMap) -> None:
        self._btf, self._arch, self._layout, self._mem_map = btf, arch, layout, mem_map

    @cached_property
    def _casts(self) -> Casts:
        from pagewalk.kmem.direct import find_casts

        return find_casts(self._btf)

    @cached_property
    def counter(self) -> TableCounter | None:
        """Count the pages of whole tables."""
        from pagewalk.kmem.counter import TableCounter

        with suppress(LookupError, OSError, SourceUnavailable):
            return TableCounter(self._casts, self._arch)
        return None

    @cached_property
    def condenser(self) -> Condenser | None:
        """Condense struct pages."""
        from pagewalk.kmem.condenser import Condenser

        with suppress(LookupError, OSError, SourceUnavailable):
            return Condenser(self._casts, self._arch, self._layout, self._mem_map)
        return None
