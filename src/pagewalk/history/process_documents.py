"""What is recorded of a process besides its pages, as documents, and what FILE tells of it again.

The names of the documents are those of what live commands show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from pagewalk.account.huge import Huge, Kept, completed
from pagewalk.account.smaps import SwapUsers
from pagewalk.account.table import Table
from pagewalk.account.table import table as walk_table
from pagewalk.heap.heap import Heap
from pagewalk.heap.read import read_heap
from pagewalk.model.columns import U64, Withheld
from pagewalk.model.errors import NotRecorded
from pagewalk.snapshot.documents import to_text
from pagewalk.sources import Source
from pagewalk.sources.recorded import RecordedSource
from pagewalk.system.file_cache import CacheLook, look_at_mapped

HUGE, HEAP, CACHE, SWAP = "huge", "heap", "cache", "swap_users"
LEFT_OUT = "(left out)"
UNCOUNTED = Withheld("swap_pss", "the users of swap slots were not recorded: every process that"
                     " uses swap has to be walked for that; record it with --swap-users")
Kind = TypeVar("Kind")


def asked_for(
    *, heap: bool, cache: bool, scrub: bool
) -> Iterator[tuple[str, Callable[[Source], str]]]:
    """Yield the name of each document that is asked for besides, and what makes its text.

    It is made of the live process, with ``scrub`` without paths, and raises as read_heap does.
    """
    if heap:
        yield HEAP, heap_without_paths if scrub else lambda source: to_text(read_heap(source))
    if cache:
        yield CACHE, lambda source: to_text(look_at_mapped(source))


def heap_without_paths(source: Source) -> str:
    heap = read_heap(source)
    who, library = heap.who._replace(exe=None), scrubbed_name(heap.library)
    return to_text(heap._replace(who=who, library=library))


def scrubbed_name(name: str) -> str:
    """Return what a scrubbed recording keeps of a name: nothing of a path.

    It is not empty: mappings without a name are anonymous memory.
    """
    return LEFT_OUT if "/" in name else name


def users_of(slots: U64, every: SwapUsers) -> SwapUsers:
    """Return ``every`` with the swap slots ``slots`` only, which one process uses."""
    own = np.isin(every.slot, slots)
    return SwapUsers(every.slot[own], every.users[own], every.missing)


# ---- from a recording


def kept(source: Source, name: str, kind: type[Kind]) -> Kind | None:
    """Return the document ``name`` of a recorded process, None if it was not recorded."""
    assert isinstance(source, RecordedSource)
    found: Kind | None = source.document(name, kind)
    return found


def needed(source: Source, name: str, kind: type[Kind], what: str, why: str) -> Kind:
    """Return the document ``name``; raises NotRecorded, which says that ``what`` is missing."""
    found = kept(source, name, kind)
    if found is None:
        raise refused(source, what, why, f"record it with --{name}")
    return found


def refused(source: Source, what: str, why: str, remedy: str) -> NotRecorded:
    """Return the refusal of a command about a recorded process."""
    assert isinstance(source, RecordedSource)
    return NotRecorded(source.space.recording.path, what, why, remedy)


def heap_of(source: Source) -> Heap:
    """Return the heap of a recorded process; raises NotRecorded."""
    return needed(source, HEAP, Heap, "the heap",
                  "the memory of a process is only read if that is asked for")


def cache_of(source: Source) -> CacheLook:
    """Return what was in RAM of the files that a recorded process maps; raises NotRecorded."""
    return needed(source, CACHE, CacheLook, "the page cache of the files that are mapped",
                  "each file has to be opened for that")


def huge_of(source: Source) -> Huge:
    """Return how the large folios of a recorded process are mapped; raises NotRecorded.

    As account.huge.by_folio does of a live one.
    """
    found = kept(source, HUGE, Kept)
    if found is None:
        raise refused(source, "the large folios", "it was made by an older pagewalk",
                      "record the process again")
    return completed(checked(walk_table(source), found, source), found)


def checked(table: Table, found: Kept, source: Source) -> Table:
    """Return ``table``; raises BadRecording unless ``found`` has its VMAs."""
    assert isinstance(source, RecordedSource)
    source.check_columns(found.columns.values())
    return table


def swap_users_of(source: Source) -> SwapUsers | Withheld:
    """Return who used the swap slots of a recorded process, or why that is not known."""
    return kept(source, SWAP, SwapUsers) or UNCOUNTED
