"""pagewalk who: everybody who maps one page frame, or one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    budget_option,
    complete_target,
    format_option,
    output_options,
    source_option,
    table_options,
)
from pagewalk.model.errors import BadRequest, in_a_line

LARGEST = 10**18  # no address of RAM is larger

if TYPE_CHECKING:
    from pagewalk.system.mappers import Mapper, Who


@click.command("who", short_help="Everybody who maps one page, or one file.")
@click.argument("target", required=False, shell_complete=complete_target)
@click.argument("address", required=False)
@click.option("--pfn", metavar="N", help="The page frame of this number, decimal or 0x...")
@click.option("--phys", metavar="ADDRESS", help="The page frame at this physical address.")
@click.option("--file", "path", metavar="PATH", help="The file at PATH, whatever part of it.")
@click.option("--shm", metavar="ID", help="The SysV segment with this id (ipcs -m).")
@source_option("ebpf, kcore, drgn or procfs")
@format_option("text", "json")
@budget_option
@table_options
@output_options
def command(
    target: str | None, address: str | None, pfn: str | None, phys: str | None, path: str | None,
    shm: str | None, **options: Any,
) -> int:
    """Show every process that maps the page at ADDRESS of TARGET, and where; or that maps a file.

    ADDRESS is as for vtop: hexadecimal, or a VMA's name with an offset. It is found by the
    kernel's own reverse map where its memory can be read, else all processes are walked.

    \b
    pagewalk who $$ stack-8
    pagewalk who $$ libc.so.6+0x2000
    pagewalk who --file /bin/sh
    pagewalk who $$ heap --format json
    """
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN, choose

    request = Request(target=target or "", freeze=False, **options)
    choice = choose("who", request.columns, request.sort, request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    found = asked(request, address, pfn, phys, path, shm)
    write = view(request.format, "who", request.human, request.color)
    with commands.output(request.output) as out:
        write(found, choice.rows(found.mappers, value), out, columns=choice.columns)
    return commands.concluded(request, found.tried.withheld)


def value(one: Mapper, name: str) -> Any:
    return getattr(one, name)


def asked(
    request: Request, address: str | None, pfn: str | None, phys: str | None, path: str | None,
    shm: str | None,
) -> Who:
    """Return who maps what was asked for; raises BadRequest unless it is one thing."""
    from pagewalk.proc.processes import find
    from pagewalk.snapshot.places import may_be_recording
    from pagewalk.system import who

    for option, given in (("--pfn", pfn), ("--phys", phys), ("--file", path), ("--shm", shm)):
        if given is not None and may_be_recording(request.target):
            raise BadRequest(f"{option} is about the live memory of this machine, and"
                             f" {in_a_line(request.target)} is a recording: leave out one of them")
    if sum(one is not None for one in (request.target or None, pfn, phys, path, shm)) != 1 or (
            bool(request.target) != (address is not None)):
        raise BadRequest("name one thing: TARGET and ADDRESS, --pfn, --phys, --file or --shm")
    budget = request.budget_ns
    if path is not None:
        try:
            file = who.of_path(path)
        except OSError as error:
            raise BadRequest(f"cannot look at {path}: {(error.strerror or '').lower()}") from None
        return who.who_maps_file(file, request.source, budget)
    if shm is not None:
        segment = who.of_segment(number("--shm", shm))
        return who.who_maps_file(segment, request.source, budget)
    if request.target:
        assert address is not None
        if may_be_recording(request.target):
            from pagewalk.history.who import who_in_recording

            commands.refuse_live(request, request.target)
            recorded = who_in_recording(request.target, address)
            if recorded is not None:
                return recorded
        frame = who.frame_behind(find(request.target), address, request.source, budget)
    elif phys is not None:
        frame = who.frame_at(number("--phys", phys, 16), request.source, budget)
    else:
        assert pfn is not None
        frame = number("--pfn", pfn)
    return who.who_maps_frame(frame, request.source, budget)


def number(option: str, text: str, base: int = 10) -> int:
    """Return a number that is not negative, in ``base`` or with 0x in hexadecimal."""
    try:
        found = int(text, 16 if text[:2].lower() == "0x" else base)
    except ValueError:
        found = -1
    if not 0 <= found <= LARGEST:
        raise BadRequest(f"{option}: '{text}' is not a valid number")
    return found
