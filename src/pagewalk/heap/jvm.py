"""What a HotSpot JVM says about its memory when it is asked, as ``jcmd`` shows it."""

import re
from typing import NamedTuple

from pagewalk.heap.attach import Answers, ask
from pagewalk.heap.hotspot import Space
from pagewalk.proc.target import Target

HEAP, METASPACE, CODE, NATIVE = COMMANDS = (
    "GC.heap_info", "VM.metaspace basic scale=1", "Compiler.codecache",
    "VM.native_memory summary scale=1",
)
NO_JVM = "it is no HotSpot JVM with performance data, which says whether it may be asked"
CANNOT = "it was started so that it cannot be asked (-XX:+DisableAttachMechanism)"
# Of JDK 17 and 25, each collector: the name, what is committed and what is used.
UNITS = {"K": 10, "M": 20, "G": 30}
TOTAL = re.compile(r"^ ?(\S[\w -]*?) +total (?:reserved \d+K, committed )?(\d+)(K), used (\d+)(K)")
Z = re.compile(r"^ ?(ZHeap) +used (\d+)([KMG]), capacity (\d+)([KMG])")
SHENANDOAH = re.compile(r"^ \d+[KMG] max, .*?(\d+)([KMG]) committed, (\d+)([KMG]) used")
USED = re.compile(r"^ *(Non-class|Class|Both): +(\d+) bytes used")
COMMITTED = re.compile(r"^ *(Non-class space|Class space|Both): +\d+ bytes reserved, +(\d+) bytes ")
CACHE = re.compile(r"^(?:CodeHeap '([^']*)'|CodeCache): size=(\d+)Kb,? used=(\d+)Kb")
TRACKED = re.compile(r"^- +(\S.*?) \(reserved=(\d+), committed=(\d+)\)")
OFF = "Native memory tracking is not enabled"


class Tracked(NamedTuple):
    """What the JVM obtained for one purpose: bytes ``reserved``, and ``committed`` of them."""

    name: str
    reserved: int
    committed: int


class Asked(NamedTuple):
    """What a JVM answered, each None where it did not.

    ``heap``: the spaces of its heap now. ``metaspace``: its two parts; their capacity is what is
    committed. ``code_cache``: its segments, with reserved capacity. ``native``: what it tracks of
    its own memory (NativeMemoryTracking), empty if it does not. ``started``, ``took_ns``, ``why``:
    see Answers.
    """

    heap: list[Space] | None
    metaspace: list[Space] | None
    code_cache: list[Space] | None
    native: list[Tracked] | None
    started: bool
    took_ns: int
    why: str


def ask_jvm(target: Target, attachable: bool | None) -> Asked:
    """Return what ``target`` answers; ``attachable`` is what its performance data say of that.

    Raises ProcessGone.
    """
    if attachable:
        return parsed(ask(target, COMMANDS))
    why = NO_JVM if attachable is None else CANNOT
    return parsed(Answers({}, started=False, took_ns=0, why=why))


def parsed(answers: Answers) -> Asked:
    """Return the numbers in ``answers``."""
    lines = {command: text.split("\n") for command, text in answers.texts.items()}
    native = lines.get(NATIVE)
    return Asked(
        heap_spaces(lines.get(HEAP, [])) or None, metaspaces(lines.get(METASPACE, [])) or None,
        code_segments(lines.get(CODE, [])) or None,
        None if native is None else tracked(native),
        answers.started, answers.took_ns, answers.why,
    )


def heap_spaces(lines: list[str]) -> list[Space]:
    """Return the generations, or the heap where it has none."""
    found = []
    for line in lines:
        if match := TOTAL.match(line):
            found.append(Space(match[1], sized(*match.group(2, 3)), sized(*match.group(4, 5))))
        elif match := Z.match(line):
            found.append(Space(match[1], sized(*match.group(4, 5)), sized(*match.group(2, 3))))
        elif match := SHENANDOAH.match(line):
            found.append(Space("Shenandoah", sized(*match.group(1, 2)), sized(*match.group(3, 4))))
    return found


def sized(number: str, unit: str) -> int:
    return int(number) << UNITS[unit]


def metaspaces(lines: list[str]) -> list[Space]:
    """Return metaspace without and with classes; none if one of the numbers is missing."""
    used = {match[1]: int(match[2]) for line in lines if (match := USED.match(line))}
    held = {match[1]: int(match[2]) for line in lines if (match := COMMITTED.match(line))}
    names = {"Non-class": "metaspace", "Class": "class space"}
    return [Space(name, held[f"{key} space"], used[key]) for key, name in names.items()
            if key in used and f"{key} space" in held]


def code_segments(lines: list[str]) -> list[Space]:
    """Return the segments of the code cache, or the whole where it has none."""
    found = [match for line in lines if (match := CACHE.match(line))]
    segments = [match for match in found if match[1] is not None] or found
    return [Space(match[1] or "code cache", int(match[2]) << 10, int(match[3]) << 10)
            for match in segments]


def tracked(lines: list[str]) -> list[Tracked]:
    """Return what it tracks of its memory, by purpose."""
    return [Tracked(match[1], int(match[2]), int(match[3]))
            for line in lines if (match := TRACKED.match(line))]
