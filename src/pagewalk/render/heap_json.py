"""What an allocator and a runtime hold, as JSON: the keys of docs/json.md#heap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.render.columns import fields
from pagewalk.render.document import missing, write

if TYPE_CHECKING:
    from pagewalk.heap.golang import Go
    from pagewalk.heap.heap import Heap
    from pagewalk.heap.jvm import Asked


def heap(
    found: Heap, out: TextIO, arenas: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write what the allocator holds, in all and by arena: ``arenas``, with the ``columns``."""
    shown = found.arenas if arenas is None else [found.arenas[row] for row in arenas]
    names = ("obtained", "in_use", "free", "trim", "trim_exclusive", "thread_top", "scattered",
             "locked")
    write(
        {
            "process": found.who._asdict(),
            "allocator": found.allocator,
            "library": found.library,
            "others": list(found.others),
            **{key: found.total(name)
               for name, key in zip(names, (*names[:5], "thread_tops", *names[6:]), strict=True)},
            "tcache": found.tcache,
            "mmapped": found.mmapped,
            "written": found.written,
            "explained": found.explained,
            "anonymous": found.anonymous,
            "exact": found.exact,
            "why": found.why,
            "stopped_ns": found.stopped_ns,
            "rest_later": found.rest_later,
            "stacks": found.stacks._asdict(),
            "pools": None if found.pools is None else found.pools._asdict(),
            "python": None if found.python is None else found.python._asdict(),
            "java": None if found.java is None else [one._asdict() for one in found.java],
            "asked": None if found.asked is None else jvm(found.asked),
            "go": None if found.go is None else go_heap(found.go),
            "returnable": None if found.returnable is None else found.returnable._asdict(),
            "arenas": [fields("heap", arena._asdict(), columns) for arena in shown],
            **missing(found.outcome.withheld),
        },
        out,
    )


def jvm(asked: Asked) -> dict[str, Any]:
    return {name: [one._asdict() for one in part] if isinstance(part, list) else part
            for name, part in asked._asdict().items()}


def go_heap(go: Go) -> dict[str, Any]:
    amounts = dict(zip(go._fields[2:], go[2:], strict=True))
    return {"version": go.version, "why": go.why,
            **{name: part and part._asdict() for name, part in amounts.items()}}
