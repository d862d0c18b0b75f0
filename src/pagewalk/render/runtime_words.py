"""What the heap of a language's runtime holds, in sentences and a table."""

from __future__ import annotations

from collections.abc import Iterator

from pagewalk.heap.golang import TORN, Amount, Go
from pagewalk.heap.hotspot import Space
from pagewalk.heap.jvm import Asked, Tracked
from pagewalk.render.amounts import kib, size
from pagewalk.render.terminal import printable

LEAST = 1 << 20  # bytes worth a sentence
NAMED = 6  # kinds of native memory
HEADING = ("GO HEAP", "SIZE", "IN RAM")
GO_ROWS = {
    "objects": "objects, reachable or not", "stacks": "stacks of goroutines", "free": "free",
    "released": "given back", "set_aside": "set aside", "obtained": "total",
}


def go_heap(go: Go) -> str:
    """Say what it is."""
    return f"the heap of Go's runtime, {printable(go.version) or 'older than go1.18'}"


def go_answers(go: Go, *, exact: bool, stop_helps: bool) -> Iterator[str]:
    """Yield what Go's runtime could give back; ``stop_helps``: see Heap."""
    if go.free is None:
        torn = stop_helps and go.why == TORN
        hint = "; with --freeze the process is stopped meanwhile" if torn else ""
        yield f"What is free inside Go's heap is not known: {go.why}{hint}."
        return
    yield (f"debug.FreeOSMemory() would give back {size(go.free.present)}{to_others(go.free)}, and"
           " what it finds unreachable.")
    if exact and go.released is not None and go.released.present:
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


def jvm_answers(asked: Asked) -> Iterator[str]:
    """Yield what a JVM said when it was asked."""
    for title, spaces, what, present in (
        ("the Java heap now", asked.heap, "committed", asked.heap_present),
        ("metaspace", asked.metaspace, "committed", None),
        ("generated code", asked.code_cache, "reserved", asked.code_present),
    ):
        if spaces:
            parts = ", ".join(map(space, spaces))
            in_ram = "" if present is None else f"; {size(present)} in RAM"
            yield f"{title}, used of {what}{in_all(spaces)}: {parts}{in_ram}"
    # What is used is not all in RAM: this is the least that is in RAM and not used.
    unused = (asked.heap_present or 0) - sum(one.used for one in asked.heap or ())
    if unused >= LEAST:
        yield (f"at least {size(unused)} of the Java heap are in RAM and not in use; a full"
               " collection may give some back, a smaller -Xmx does")
    if asked.native:
        yield f"native memory as the JVM tracks it, committed: {native(asked.native)}"
    elif asked.native is not None:
        yield "it does not track its native memory (-XX:NativeMemoryTracking=summary)"
    if asked.why:
        yield f"not answered: {printable(asked.why)}"
    if asked.took_ns:
        yield f"asking it took {asked.took_ns / 1e6:.0f} ms" + (
            ", and started its attach listener: a thread, and a socket in its /tmp"
            if asked.started else "")


def native(parts: list[Tracked]) -> str:
    ordered = sorted(parts, key=lambda one: -one.committed)
    words = [f"{printable(one.name)} {size(one.committed)}" for one in ordered[:NAMED]]
    if rest := ordered[NAMED:]:
        words.append(f"{len(rest)} others {size(sum(one.committed for one in rest))}")
    return ", ".join(words)


def space(one: Space) -> str:
    return f"{printable(one.name)} {kib(one.used)} of {size(one.capacity)}"


def in_all(spaces: list[Space]) -> str:
    if len(spaces) == 1:
        return ""
    used, capacity = (sum(getattr(one, name) for one in spaces) for name in ("used", "capacity"))
    return f", in all {kib(used)} of {size(capacity)}"
