"""Members of many structs of one kind as columns, and the strings that structs point to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_structs
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.proc.files import decode_name

_WORD_MASK = np.uint64(7)


def gather(
    kernel: Kernel, struct: str, addresses: U64, paths: Sequence[str]
) -> tuple[dict[str, U64], Bool]:
    """Read members ``paths`` of the ``struct`` at each of ``addresses`` (u64[n]).

    Returns {path: u64[n]} and a mask of the rows that could be read; the others are 0. A struct is
    read once, from the first of the members to the last. Raises NotInBtf.
    """
    places = [kernel.btf.member(struct, path) for path in paths]
    low = min(place.offset for place in places)
    size = max(place.offset + place.size for place in places) - low
    rows, errno = read_structs(kernel.memory, addresses + np.uint64(low), size)
    found = {}
    for path, place in zip(paths, places, strict=True):
        cells = rows[:, place.offset - low : place.offset - low + place.size]
        column = np.ascontiguousarray(cells).view(f"<u{place.size}")[:, 0].astype(np.uint64)
        column[errno != 0] = 0
        found[path] = column
    return found, errno == 0


def read_names(kernel: Kernel, addresses: U64, size: int) -> list[str | None]:
    """Read the string at each of ``addresses`` (u64[n]), at most ``size`` bytes of it.

    None for a string that cannot be read. One that ends before a page that cannot be read is read
    as far as that page.
    """
    # Up to the end of the page first: what is beyond it need not be mapped.
    room = (np.uint64(PAGE) - (addresses & np.uint64(PAGE - 1))).astype(np.int64)
    raw = _read_up_to(kernel, addresses, np.minimum(room, size))
    cut = [
        row for row, text in enumerate(raw)
        if text is not None and b"\0" not in text and len(text) < size
    ]  # fmt: skip
    if cut:
        at = np.array(cut)
        rest = _read_up_to(kernel, addresses[at] + room[at].astype(np.uint64), size - room[at])
        for row, more in zip(cut, rest, strict=True):
            raw[row] = (raw[row] or b"") + (more or b"")
    return [None if text is None else decode_name(text.partition(b"\0")[0]) for text in raw]


def _read_up_to(kernel: Kernel, addresses: U64, sizes: I64) -> list[bytes | None]:
    found: list[bytes | None] = []
    for batch in kernel.memory.batches(addresses, sizes.astype(np.uint32)):
        data, at = batch.data.tobytes(), 0
        here = sizes[batch.first : batch.first + len(batch.errno)]
        for size, errno in zip(here.tolist(), batch.errno.tolist(), strict=True):
            found.append(None if errno else data[at : at + size])
            at += size
    return found


def in_direct_map(direct_map: DirectMap, addresses: U64) -> Bool:
    """Return which of ``addresses`` (u64[n]) can be those of structs: aligned, and in RAM's map.

    What was read while it changed may be any number; only here is reading it surely harmless.
    """
    size = direct_map.arch.direct_map_size[len(direct_map.arch.levels)]
    inside: Bool = (addresses - np.uint64(direct_map.base) < np.uint64(size)) & (
        addresses & _WORD_MASK == 0
    )
    return inside
