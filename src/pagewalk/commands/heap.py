"""pagewalk heap: what a process's allocator holds, and what it could give back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk.commands import PARTIAL, finish, note, opened, rounds
from pagewalk.commands.options import (
    Request,
    Within,
    check_watch,
    choice_of,
    table_options,
    target_options,
    watch_option,
)
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.heap.heap import Heap
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source


@click.command("heap", short_help="Inside the allocator: in use, free, what could be returned.")
@target_options("text", "json")
@table_options
@watch_option
@click.option("--longest-stop", default=500.0, metavar="MS", show_default=True,
              type=Within(1, 60_000),
              help="With --freeze: resume TARGET after that time, come what may.")
@click.option("--ask", is_flag=True,
              help="Let a JVM tell more. It runs code for that, and may start a thread.")
def command(longest_stop: float, ask: bool, **options: object) -> int:
    """Show what TARGET's allocator holds: in use, free, and what malloc_trim(0) would give back.

    Its memory is read, never written, and only what is in RAM. The numbers are exact if TARGET does
    not run meanwhile; with --freeze it is stopped if it does, only while they are read. --columns,
    --sort and --limit list every arena by itself. --ask asks a Java virtual machine, as jcmd does,
    for its heap, metaspace, code cache and, if it tracks that, native memory.

    \b
    pagewalk heap $$
    pagewalk heap $$ --freeze
    pagewalk heap $$ --sort free --limit 10
    pagewalk heap $$ --format json
    """
    from pagewalk.heap.read import read_heap, read_stopped_heap, with_asked

    request = Request(**options)  # type: ignore[arg-type]
    choice = choice_of(request, "heap")
    check_watch(request)
    if ask and request.watch:
        raise BadRequest("--ask has the process run code each time: leave out --watch")
    # It is stopped only while its heap is copied, and then nothing is told: a terminal may block.
    quiet = request.quiet or request.freeze
    with opened(request._replace(freeze=False, quiet=quiet), "heap") as (source, write):
        for _ in rounds(request, write):
            if source.recorded is not None:
                heap = recorded(source, request, ask=ask)
            elif request.freeze:
                heap = read_stopped_heap(source, int(longest_stop * 1e6))
            else:
                heap = read_heap(source)
            if ask and source.recorded is None:
                heap = with_asked(heap, source)
            write(heap, **by_arena(heap, choice))
    if heap.stopped_ns:
        note(request, f"process {heap.who.pid} was stopped for {heap.stopped_ns / 1e6:.1f} ms")
    if heap.asked and heap.asked.started:
        note(request, f"process {heap.who.pid} started its attach listener, a thread that stays")
    whole = heap.exact and not (heap.asked and heap.asked.why)
    return finish(request, heap.outcome, told=request.format == "text") or (0 if whole else PARTIAL)


def recorded(source: Source, request: Request, *, ask: bool) -> Heap:
    """Return the heap of a recorded process, which can neither be stopped nor asked."""
    from pagewalk.history.process_documents import heap_of

    if ask or request.freeze:
        raise BadRequest(f"{'--ask' if ask else '--freeze'} is about a live process, and"
                         f" {request.target} is a recording: leave it out")
    return heap_of(source)


def by_arena(heap: Heap, choice: Choice | None) -> dict[str, Any]:
    """Return what a view is to show of the arenas; nothing if the user has not chosen."""
    if choice is None:
        return {}
    from pagewalk.render.heap_words import value

    rows = choice.rows(range(len(heap.arenas)), lambda row, name: value(heap, row, name))
    return {"arenas": rows, "columns": choice.columns}
