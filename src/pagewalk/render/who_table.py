"""Everybody who maps one page frame or one file: the screen and the document of `who`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import perms_text
from pagewalk.render.amounts import kib, many, size, times
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.share_table import left_out
from pagewalk.render.terminal import following, printable, say, say_grid, say_missing, width
from pagewalk.system.mappers import ALL_MAPPINGS, RECORDING, WALK, Frame, Mapper, Who

OF_PAGE = ("addr", "perms", "offset", "name", "mapping")
OF_FILE = ("addr", "perms", "offset", "size", "rss", "pss", "name", "mapping")
WORDS = ("perms", "name", "mapping")


def text(
    found: Who, mappers: Sequence[Mapper], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what it is, who maps it (``mappers``), and what was not seen."""
    for sentence in answers(found):
        say(sentence, out)
    if mappers:
        print(file=out)
        shown, above = columns, titles("who")
        if shown is None:
            shown = OF_FILE if found.frame is None else OF_PAGE
        grid = [("PID", *(above[name] for name in shown))]
        grid += [(number(one), *(cell(one, name) for name in shown)) for one in mappers]
        words = {at for at, name in enumerate(shown, 1) if name in WORDS}
        say_grid(grid, words, out, room=width(out), yields=len(shown))
        if len(mappers) < len(found.mappers):
            every = len(found.mappers)
            say(f"{every - len(mappers)} more: --limit {every} shows all", out)
    say_missing(found.tried.withheld, out)
    for one in (one for one in mappers if one.pids and found.found_by != RECORDING):
        following(out, f"vtop {one.pids[0]} {one.addr:x}", f"{one.pids[0]}")
        break


def number(one: Mapper) -> str:
    return str(one.pids[0]) if one.pids else f"{one.on_host[0]} on the host"


def cell(one: Mapper, name: str) -> str:
    value = getattr(one, name)
    if name == "perms":
        return perms_text(value)
    if name in ("addr", "offset"):
        return "" if value is None else f"{value:x}"
    if name in WORDS:
        return "not known" if value is None else printable(value) or "anonymous"
    return kib(value)


def answers(found: Who) -> Iterator[str]:
    """Yield what was asked about, how many map it, and how many mappings were not seen."""
    processes = len({(one.pids, one.on_host) for one in found.mappers})
    hidden = [*not_shown(found)]
    if found.frame is None:
        mapped = [one.rss for one in found.mappers if one.rss is not None]
        every = "in those that this /proc shows" if hidden else "in all"
        whole = f": RSS of {size(sum(mapped))} {every}" if mapped else ""
        yield (f"{printable(found.asked)} is mapped by {many(processes, 'process', 'es')}"
               f" in {many(len(found.mappers), 'mapping')}{whole}.")
        yield from hidden
        return
    frame = found.frame
    flags = ", ".join(names(frame.kflags, KPAGEFLAGS)) or "none"
    yield f"{found.asked} (flags: {flags}) is mapped {times(frame.mapcount)}."
    if not frame.mapcount and not found.mappers:
        yield "No process maps it."
    else:
        yield (f"{many(len(found.mappers), 'mapping')} in {many(processes, 'process', 'es')}"
               f" {'was' if len(found.mappers) == 1 else 'were'} found{unseen(found)}.")
    yield from hidden
    if frame.charged is not None:
        yield (f"{printable(frame.charged)} is charged for it, or a removed cgroup that was below."
               if frame.charged else "Nobody is charged for it.")
    if frame.node is not None:
        yield f"It is on NUMA node {frame.node}."


def not_shown(found: Who) -> Iterator[str]:
    """Yield a sentence on processes that are not in this /proc, if there are any."""
    hidden = {one.on_host for one in found.mappers if not one.pids}
    if hidden:
        are = "1 of these processes is" if len(hidden) == 1 else f"{len(hidden)} of them are"
        yield (f"{are} not in this /proc, such as those of another PID namespace: what is shown"
               " is the number on the host, and the path inside the file system.")


def unseen(found: Who) -> str:
    """Return how many mappings of a frame were not found, and why that may be."""
    assert found.frame is not None
    missed = found.frame.mapcount - len(found.mappers)
    if not missed:
        return ", which are all of them" if len(found.mappers) != 1 else ", which is all of them"
    if missed < 0:
        return f"; when it was counted there were {-missed} fewer"
    why = [f"{row.why}" for row in found.tried.withheld if row.what == ALL_MAPPINGS]
    if found.tried.not_looked:
        why.append(f"{many(len(found.tried.not_looked), 'process', 'es')} could not be looked at")
    if found.found_by == RECORDING:
        return f"; {missed} more {'is' if missed == 1 else 'are'} by processes not in the recording"
    if found.tried.gone:
        why.append(f"{many(len(found.tried.gone), 'process', 'es')} ended meanwhile")
    hidden = "this /proc may not show them, or " if found.found_by == WALK else ""
    if hidden or not why:
        why.append(f"{hidden}it is mapped again and unmapped all the time")
    return f"; {missed} more {'was' if missed == 1 else 'were'} not: {', or '.join(why)}"


def json(
    found: Who, mappers: Sequence[Mapper], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write all of it, with ``mappers``."""
    write({
        "source": {"name": found.tried.source},
        "asked": found.asked,
        "frame": None if found.frame is None else frame(found.frame),
        "found_by": found.found_by,
        "mappers": [fields("who", mapper(one), columns) for one in mappers],
        **left_out(found.tried), **missing(found.tried.withheld),
        "stall_ns": found.tried.stall_ns,
    }, out)


def frame(one: Frame) -> dict[str, Any]:
    return {"pfn": one.pfn, "flags": names(one.kflags, KPAGEFLAGS), "mapcount": one.mapcount,
            "charged_to": one.charged, "node": one.node}


def mapper(one: Mapper) -> dict[str, Any]:
    return {"pid": one.pid, "pids": list(one.pids), "on_host": list(one.on_host), "name": one.name,
            "addr": f"{one.addr:#x}", "size": one.size, "perms": perms_text(one.perms),
            "offset": one.offset, "mapping": one.mapping, "rss": one.rss, "pss": one.pss}
