"""What a walk found out beside pages, as a recording keeps it."""

from typing import NamedTuple

from pagewalk.model.columns import I64, U64, Tells, Withheld
from pagewalk.proc.counters import Theirs
from pagewalk.proc.objects import Object
from pagewalk.sources.outcome import Who


class Found(NamedTuple):
    """What a walk found out beside pages, as in Outcome; columns by VMA are in the rows of VMAs.

    ``notes`` are those of the source. ``theirs`` are the kernel's own numbers before and after.
    ``pointers`` u64 are where the stacks of threads are, ``built_by`` which version of Go built the
    program. ``page_size`` and ``thp_eligible`` i64 by VMA are as in Particulars, None where they
    were not read; ``lazyfree`` says whether the machine had any such memory.
    """

    source: str
    who: Who
    tells: Tells
    withheld: tuple[Withheld, ...]
    vm_swap: int | None
    vm_rss: int | None
    objects: tuple[tuple[Object, bool | None], ...]
    all_objects: bool
    counts_hwpoison: bool | None
    page_tables: int | None
    stall: tuple[int, str, int]
    theirs: tuple[Theirs, ...]
    pointers: U64
    built_by: str | None
    told_shmem_swap: bool
    told_locked: bool
    page_size: I64 | None = None
    thp_eligible: I64 | None = None
    lazyfree: bool = True
    notes: tuple[Withheld, ...] = ()
