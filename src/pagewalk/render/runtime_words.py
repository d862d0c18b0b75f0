"""What the heap of a language's runtime holds, in sentences and a table."""

from __future__ import annotations

from collections.abc import Iterator

from pagewalk.heap.golang import Amount, Go
from pagewalk.render.terminal import kib, printable, size

HEADING = ("GO HEAP", "SIZE", "IN RAM")
GO_ROWS = {
    "objects": "objects, reachable or not", "stacks": "stacks of goroutines", "free": "free",
    "released": "given back", "set_aside": "set aside", "obtained": "total",
}


def go_heap(go: Go) -> str:
    """Say what it is."""
    return f"the heap of Go's runtime, {printable(go.version) or 'older than go1.18'}"


def go_answers(go: Go) -> Iterator[str]:
    """Yield what Go's runtime could give back."""
    if go.free is None:
        yield f"What is free inside Go's heap is not known: {go.why}."
        return
    yield (f"debug.FreeOSMemory() would give back {size(go.free.present)}{to_others(go.free)}, and"
           " what it finds unreachable.")
    if go.released is not None and go.released.present:
        yield (f"{size(go.released.present)} were given back but are still in RAM: the kernel takes"
               " them when it needs them (GODEBUG=madvdontneed=0), or they are part of huge pages.")


def to_others(free: Amount) -> str:
    if free.exclusive is None or free.exclusive == free.present:
        return ""
    return f" ({size(free.exclusive)} to the machine: the rest is shared with a forked process)"


def go_rows(go: Go) -> list[tuple[str, ...]]:
    """Return the table of its heap, empty if that is not known."""
    parts = [(title, getattr(go, name)) for name, title in GO_ROWS.items()]
    if None in dict(parts).values():
        return []
    return [HEADING, *((title, kib(part.size), kib(part.present)) for title, part in parts)]
