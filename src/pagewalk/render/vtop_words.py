"""A translation in words and digits: the pieces that the text view lays out."""

from __future__ import annotations

from collections.abc import Iterator

from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import Flag, State, perms_text
from pagewalk.pagetables.trace import Step
from pagewalk.render.terminal import align
from pagewalk.translate.remarks import amount
from pagewalk.translate.translation import Translation

LEVELS = ("LEVEL", "INDEX", "TABLE", "ENTRY AT", "ENTRY", "RIGHTS")


def answer(found: Translation) -> str:
    """Return the answer in one line: the physical address, or why there is none."""
    trace, last = found.trace, found.trace.last
    if trace.phys is not None:
        end = f"physical {trace.phys:#x}"
    elif last.doubt is not None:
        end = f"unknown: the {last.level.name} entry is malformed"
    elif trace.none:
        end = f"no page: the {last.level.name} entry is empty"
    else:
        state = last.kind if found.state is None else found.state.label
        end = f"no page: the {last.level.name} entry says {state}"
    asked = "" if found.asked.removeprefix("0x") == f"{trace.addr:x}" else f"{found.asked} = "
    return f"{asked}{trace.addr:#x} -> {end}"


def reading(found: Translation) -> str:
    """Return how the entries were read, and whether they were stable."""
    often = "read twice, same entries" if found.stable else "the entries kept changing"
    size = amount(1 << found.trace.page_shift)
    return (
        f"read by {found.source}, {found.arch.name}, {len(found.arch.levels)} levels,"
        f" {size} pages; {often}"
    )


def cut_address(found: Translation) -> list[list[str]]:
    """Return the address cut into indexes and offset: a row of titles, of bits, of numbers.

    Below the level that maps the page all bits are the offset. If nothing is mapped, the address
    is cut as for a base page.
    """
    trace = found.trace
    fields = [(step.level, step.slots.bit_length() - 1) for step in trace.steps]
    shift = trace.last.level.shift
    if trace.none:
        below = found.arch.levels[len(trace.steps) :]
        fields += [(level, level.bits) for level in below]
        shift = trace.page_shift
    columns = [("bits", "", "index")]
    for level, bits in fields:
        index = trace.addr >> level.shift & (1 << bits) - 1
        title = f"{level.name} {level.shift + bits - 1}-{level.shift}"
        columns.append((title, f"{index:0{bits}b}", str(index)))
    offset = trace.addr & (1 << shift) - 1
    columns.append((f"offset {shift - 1}-0", f"{offset:0{shift}b}", hex(offset)))
    return [list(row) for row in zip(*columns, strict=True)]


def levels(found: Translation) -> list[str]:
    """Return a line per level, below the heading LEVELS."""
    rows = [
        (step.level.name, str(step.slot), hex(step.table), hex(step.at), raw(step), rights(step))
        for step in found.trace.steps
    ]
    return align(list(zip(LEVELS, *rows, strict=True)), {0, 5})


def raw(step: Step) -> str:
    """Return the raw entry, sixteen digits."""
    return f"{step.entry:#018x}"


def leads_on(step: Step) -> bool:
    """Return whether the entry holds the plain address of a table or of a page."""
    return step.below is not None or Flag.USER in step.flags


def rights(step: Step) -> str:
    """Return what the entries down to this level grant together, such as ``rwx user``."""
    if step.below is None and (Flag.PRESENT not in step.flags or Flag.PROT_NONE in step.flags):
        return "none"
    letters = ("w" if Flag.WRITE in step.rights else "-") + (
        "x" if Flag.EXEC in step.rights else "-"
    )
    return f"r{letters} {'user' if Flag.USER in step.rights else 'kernel'}"


def says(step: Step) -> str:
    """Return an entry in words: what it is, where it points, and its bits by name."""
    known = dict(step.says)
    text = "empty" if step.kind == "none" else step.kind
    if "table" in known:
        text = f"table at {known['table']:#x}"
    elif "pfn" in known:
        text += f", frame {known['pfn']:#x}"
    for name in ("type", "offset", "marks"):
        text += f", {name} {known[name]}" if known.get(name, "") != "" else ""
    text += f", pkey {known['pkey']}" if known.get("pkey") else ""
    return f"{text}: {known['bits']}" if known.get("bits") else text


def facts(found: Translation) -> Iterator[tuple[str, str]]:
    """Yield what is known besides the entries, as (title, text)."""
    trace = found.trace
    if trace.phys is not None:
        kind = "" if found.state is None else f"{found.state.label}, "
        yield "PAGE", (
            f"{kind}{amount(trace.last.size)}: {trace.phys - trace.offset:#x} + {trace.offset:#x}"
            f" = {trace.phys:#x}"
        )
    elif found.state is not None:
        named = "no page table" if found.state is State.NOT_MAPPED else found.state.label
        yield "STATE", named
    if found.frame is not None:
        flags = " ".join(names(found.frame.kflags, KPAGEFLAGS)) or "no flags"
        yield "FRAME", f"{found.frame.pfn:#x}, mapcount {found.frame.mapcount}: {flags}"
    if Flag.SWAP in trace.last.flags:
        known = dict(trace.last.says)
        at = int(known["offset"]) << trace.page_shift
        device = found.device or "/proc/swaps does not show which"
        yield "SWAP", f"device {known['type']} ({device}), slot {known['offset']}, byte {at:#x}"
    if found.hole is not None:
        yield "HOLE", hole(found, *found.hole)
    if found.row is not None:
        yield "VMA", vma(found, found.row)
    yield "PAGEMAP", pagemap(found)


def hole(found: Translation, low: int, high: int) -> str:
    """Return the extent of the unpopulated range, and what bounds it."""
    vmas, row = found.vmas, found.row
    assert row is not None
    first = "its VMA's start" if low == int(vmas.start[row]) else "the previous entry"
    last = "its VMA's end" if high == int(vmas.end[row]) else "the next entry"
    return f"{low:#x}-{high:#x}, {amount(high - low)}, from {first} to {last}"


def vma(found: Translation, row: int) -> str:
    """Return the VMA of ``row``, and the offset of the address in it and in its file."""
    vmas, addr = found.vmas, found.trace.addr
    start, end = int(vmas.start[row]), int(vmas.end[row])
    in_file = int(vmas.offset[row]) + addr - start
    more = f", file offset {in_file:#x}" if vmas.inode[row] else ""
    name = vmas.name[row] or "anonymous"
    perms = perms_text(int(vmas.perms[row]))
    return f"{start:x}-{end:x} {perms} +{addr - start:#x}{more}: {name}"


def pagemap(found: Translation) -> str:
    """Return what pagemap says, and whether it agrees."""
    opinion = found.pagemap
    verdict = {True: "agrees", False: "differs", None: "not compared"}[opinion.agrees]
    word = "" if opinion.word is None else f"{opinion.word:#018x} "
    return f"{word}{verdict}" + (f": {opinion.why}" if opinion.why else "")


def legend(found: Translation) -> Iterator[tuple[str, str]]:
    """Yield the meaning of every bit that is set in an entry or in the frame's flags."""
    meaning = {row.name: row.doc for row in found.arch.legend}
    used = " ".join(str(dict(step.says).get("bits", "")) for step in found.trace.steps).split()
    for name in dict.fromkeys(used):
        yield f"entry {name}", meaning.get(name, "unknown bit")
    if found.frame is not None:
        frame_meaning = {row.name: row.doc for row in KPAGEFLAGS}
        for name in names(found.frame.kflags, KPAGEFLAGS):
            yield f"frame {name}", frame_meaning.get(name, "unknown bit")
