"""What a heap's numbers mean, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pagewalk.heap.heap import Heap, Part
from pagewalk.heap.returnable import Returnable
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import titles
from pagewalk.render.runtime_words import go_answers, go_heap, jvm_answers, space
from pagewalk.render.terminal import printable

# Scattered memory is worth a sentence from this share of what is free and in RAM on, and from this
# amount on.
MUCH, LEAST = 1 / 4, 1 << 20
AMOUNTS = ("obtained", "in_use", "free", "trim", "thread_top", "scattered")


def reading(heap: Heap) -> str:
    """Say which allocator it is, how it was read, and how much of the process is explained."""
    if heap.arenas:
        count = many(len(heap.arenas), "arena")
        what = f"glibc's malloc, {count}, in {printable(heap.library)}"
    elif heap.go:
        what = go_heap(heap.go)
    else:
        what = heap.allocator or "no allocator recognised"
    how = "read while stopped" if heap.exact else "stopped"
    stopped = f"; {how} for {heap.stopped_ns / 1e6:.0f} ms" if heap.stopped_ns else ""
    return (f"{what}{stopped}; {kib(heap.explained)} of {size(heap.anonymous)} of anonymous"
            " memory in RAM are explained below")


def answers(heap: Heap) -> Iterator[str]:
    """Yield what could be reclaimed, what could not, and how sure that is, in plain sentences."""
    trim, scattered, tops = (heap.total(name) for name in ("trim", "scattered", "thread_top"))
    if heap.go:
        yield from go_answers(heap.go, exact=heap.exact, stop_helps=heap.stop_helps)
    if trim is None or scattered is None or tops is None:
        if heap.allocator != "Go":
            yield f"What is free inside the allocator is not known: {heap.why}."
    else:
        yield f"malloc_trim(0) would give back {size(trim)}{to_others(heap, trim)}."
        if scattered >= max(LEAST, MUCH * (trim + scattered + tops)):
            yield (f"{size(scattered)} more are free but scattered: every page of them also"
                   " holds something in use. Trimming does not help there; fewer arenas"
                   " (MALLOC_ARENA_MAX) or another allocator may.")
        if locked := heap.total("locked"):
            yield (f"{size(locked)} more are free but locked in RAM (mlock):"
                   " malloc_trim(0) cannot return them.")
    yield from not_malloc(heap)
    yield from python_answers(heap)
    told = trim is not None or (heap.allocator == "Go" and heap.go is not None and not heap.go.why)
    if heap.returnable:
        yield from returned(heap.returnable, all_known=told)
    if told and not heap.exact:
        remedy = ("; with --freeze the process is stopped while its heap is read, and the numbers"
                  " are exact") if heap.stop_helps else ""
        yield f"These are estimates: {heap.why}{remedy}."


def python_answers(heap: Heap) -> Iterator[str]:
    """Yield what is free in CPython's own pools, where that is much."""
    pools = heap.pools
    if pools is None or heap.python is None:
        return
    if pools.free >= max(LEAST, MUCH * pools.in_use):
        yield (f"{size(pools.free)} are free inside Python's own allocator: it gives an"
               f" arena of {heap.python.arena >> 10} KiB back only when nothing in it is in use.")
    if pools.in_use - pools.blocks >= max(LEAST, MUCH * pools.in_use):
        yield (f"The program uses {size(pools.blocks)} of {size(pools.in_use)} in pools of Python's"
               " own allocator: what is free in such a pool serves only new objects of the same"
               " size.")


def returned(found: Returnable, *, all_known: bool) -> Iterator[str]:
    """Yield what could be reclaimed besides, by whom, and what it comes to in all."""
    dropped = [f"{size(found.clean_file)} of files"] if found.clean_file else []
    dropped += [f"{size(found.lazyfree)} released with MADV_FREE"] if found.lazyfree else []
    if dropped:
        yield f"When memory runs short the kernel drops {' and '.join(dropped)}."
    if found.huge_zeros >= max(LEAST, MUCH * found.huge_looked_at):
        looked_at = "" if found.huge_looked_at == found.huge else (
            f" (of {size(found.huge)}; the others were not looked at)")
        yield (f"{size(found.huge_zeros)} of {size(found.huge_looked_at)} in huge pages{looked_at}"
               " are pages of zeros: hardly used. MADV_NOHUGEPAGE avoids that; from Linux 6.12 on"
               " the kernel frees them when memory runs short, if khugepaged/max_ptes_none is below"
               " 511.")
    if (found.idle_stacks or 0) >= LEAST:
        who = "a thread waits" if found.waiting == 1 else f"{found.waiting} threads wait"
        yield (f"{size(found.idle_stacks)} of stacks lie below where {who}: used once, and kept for"
               " the next call that goes as deep. Only the program could return them.")
    all_known &= found.clean_file is not None and found.idle_stacks is not None
    all_known &= found.huge_looked_at == found.huge
    at_least = "" if all_known else "at least "
    stays = f", except {size(found.locked)} that are locked," if found.locked else ""
    yield (f"In all {at_least}{size(found.in_all)} of {kib(found.rss)} in RAM could be reclaimed"
           f" while it runs; the rest{stays} could only go to swap, if there is any.")


def not_malloc(heap: Heap) -> Iterator[str]:
    """Yield how much glibc knows nothing of, where that is much, and whose it may be."""
    rest = heap.anonymous - heap.explained
    if heap.arenas and rest >= max(LEAST, MUCH * heap.anonymous):
        whose = "the program maps them itself, or an allocator of its own does"
        if heap.others:
            whose = f"{' and '.join(heap.others)} is in the program too, and is not read"
        yield f"{size(rest)} of anonymous memory are not malloc's: {whose}."


def to_others(heap: Heap, trim: int) -> str:
    alone = heap.total("trim_exclusive")
    if alone is None or alone == trim:
        return ""
    return (f", but only {size(alone)} to the machine: the rest is shared with a forked"
            " process")


def value(heap: Heap, row: int, column: str) -> int | None:
    """Return what an arena has in ``column``; ``arena`` is its number."""
    found: int | None = row if column == "arena" else getattr(heap.arenas[row], column)
    return found


def rows(
    heap: Heap, arenas: Sequence[int] | None = None, columns: Sequence[str] | None = None
) -> list[tuple[str, ...]]:
    """Return the table: a heading, ``arenas``, and all.

    By default it has the main arena, and those of threads together.
    """
    main = [arena for arena in heap.arenas if arena.main]
    threads = [arena for arena in heap.arenas if not arena.main]
    if arenas is not None:
        parts = [("main" if heap.arenas[row].main else str(row), [heap.arenas[row]])
                 for row in arenas]
    else:
        parts = [("main", main), *([(f"{len(threads)} of threads", threads)] if threads else ())]
    if len(parts) > 1 or arenas is not None:
        parts.append(("total", [*main, *threads]))
    shown, told = AMOUNTS if columns is None else columns, titles("heap")
    lines = [(told["arena"], *(told[name] for name in shown))]
    return lines + [(title, *(cell(heap, name, some) for name in shown)) for title, some in parts]


def cell(heap: Heap, name: str, arenas: list[Part]) -> str:
    amount = heap._replace(arenas=tuple(arenas)).total(name)
    return str(amount) if name == "threads" else kib(amount)


def besides(heap: Heap) -> Iterator[str]:
    """Yield what else is known: chunks of their own, caches, stacks, pools."""
    if heap.arenas:
        yield (f"besides, {size(heap.mmapped)} are large blocks with mappings of their own;"
               f" {size(heap.tcache)} of what is in use are kept by threads for their next"
               " malloc")
    if heap.rest_later:
        yield "there was no time for what follows: it was read after the process was resumed"
    if heap.pools:
        yield (f"Python's own allocator: {size(heap.pools.in_use)} in pools with something in"
               f" use, of which the program uses {size(heap.pools.blocks)}; {size(heap.pools.free)}"
               " in free ones")
    if heap.python and heap.python.why:
        yield f"what Python's own allocator holds is not known: {heap.python.why}"
    if heap.java:
        # HotSpot has 8 bytes where there is nothing (pad_capacity(), g1MonitoringSupport.hpp).
        parts = ", ".join(space(one) for one in heap.java if one.capacity >= 1 << 10)
        yield f"the Java heap, as of its last collection: {parts}"
    if heap.asked:
        yield from jvm_answers(heap.asked)
    if heap.written:
        yield (f"pages of files that it has written to, such as variables of libraries:"
               f" {size(heap.written)}")
    stacks = heap.stacks
    if stacks.live:
        whose = "stack of a thread" if stacks.live == 1 else f"stacks of {stacks.live} threads"
        yield f"{whose}: {kib(stacks.touched)} of {size(stacks.size)} in RAM"
    if stacks.kept:
        whose = ("stack of an ended thread" if stacks.kept == 1 else
                 f"{stacks.kept} stacks of ended threads")
        yield f"{whose}, kept for new ones: {size(stacks.kept_touched)}"
