"""pagewalk heap: what a process's allocator holds, and what it could give back."""

from __future__ import annotations

import click

from pagewalk.commands import PARTIAL, Request, finish, note, opened, target_options, units_option


@click.command("heap")
@target_options("text", "json")
@units_option
@click.option("--longest-stop", default=500.0, metavar="MS", show_default=True,
              type=click.FloatRange(1, 60_000),
              help="With --freeze: resume TARGET after that time, copied or not.")
def command(longest_stop: float, **options: object) -> int:
    """Show what TARGET's allocator holds: in use, free, and what malloc_trim(0) would give back.

    Its memory is read, never written, and only what is in RAM. The numbers are exact if TARGET does
    not run meanwhile; with --freeze it is stopped, only while its heap is copied.

    \b
    pagewalk heap $$
    pagewalk heap $$ --freeze
    pagewalk heap $$ --format json
    """
    from pagewalk.heap.heap import read_heap, read_stopped_heap

    request = Request(**options)  # type: ignore[arg-type]
    with opened(request._replace(freeze=False), "heap") as (source, write):
        if request.freeze:
            heap = read_stopped_heap(source, int(longest_stop * 1e6))
        else:
            heap = read_heap(source)
        write(heap)
    if heap.stopped_ns:
        note(request, f"process {heap.walk.pid} was stopped for {heap.stopped_ns / 1e6:.1f} ms")
    return finish(request, heap.outcome, told=request.format == "text") or (
        0 if heap.exact else PARTIAL
    )
