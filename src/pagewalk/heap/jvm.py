"""What a HotSpot JVM says about its memory when it is asked, as ``jcmd`` shows it."""

import re
from typing import NamedTuple

import numpy as np

from pagewalk.heap.attach import Answers, ask
from pagewalk.heap.hotspot import Space
from pagewalk.heap.memory import bytes_within
from pagewalk.model.columns import U64
from pagewalk.model.ranges import union
from pagewalk.proc.target import Target

HEAP, METASPACE, CODE, NATIVE = COMMANDS = (
    "GC.heap_info", "VM.metaspace basic scale=1", "Compiler.codecache",
    "VM.native_memory summary scale=1",
)
NO_JVM = "it is not a HotSpot JVM with performance data, which say whether it may be asked"
CANNOT = "it was started so that it cannot be asked (-XX:+DisableAttachMechanism)"
# Of JDK 17 to 25, each collector: the name, what is committed and what is used. An answer may be
# anything: in none of these does a long line take long.
UNITS = {"K": 10, "M": 20, "G": 30}
N, SIZE = r"(\d{1,18})", r"(\d{1,18})([KMG])"
TOTAL = re.compile(rf"^ ?(\S[\w -]{{0,40}}?) {{1,20}}total (?:reserved \d{{1,18}}K, committed )?"
                   rf"{SIZE}, used {SIZE}")
Z = re.compile(rf"^ ?(ZHeap) +used {SIZE}, capacity {SIZE}")
SHENANDOAH = re.compile(rf"^ \d{{1,18}}[KMG] max, .*?{SIZE} committed, {SIZE} used")
USED = re.compile(rf"^ *(Non-class|Class|Both): +{N} bytes used")
COMMITTED = re.compile(
    rf"^ *(Non-class space|Class space|Both): +\d{{1,18}} bytes reserved, +{N} bytes "
)
CACHE = re.compile(rf"^(?:CodeHeap '([^']*)'|CodeCache): size={N}Kb,? used={N}Kb")
# From where to where, in the second and third word what of that was or is committed.
BOUNDS = re.compile(r"\[0x([0-9a-f]{1,16}), ?(?:0x[0-9a-f]{1,16}, ?)?0x([0-9a-f]{1,16})[)\]]")
TRACKED = re.compile(rf"^- +(\S.*?) \(reserved={N}, committed={N}\)")


class Tracked(NamedTuple):
    """What the JVM obtained for one purpose: bytes ``reserved``, and ``committed`` of them."""

    name: str
    reserved: int
    committed: int


class Asked(NamedTuple):
    """What a JVM answered, each None where it did not.

    ``heap``: the spaces of its heap now. ``metaspace``: its two parts; their capacity is what is
    committed. ``code_cache``: its segments, with reserved capacity. ``native``: what it tracks of
    its own memory (NativeMemoryTracking), empty if it does not. ``heap_present`` and
    ``code_present``: bytes of private anonymous memory in RAM where it says that they are.
    ``started``, ``took_ns``, ``why``: see Answers.
    """

    heap: list[Space] | None
    metaspace: list[Space] | None
    code_cache: list[Space] | None
    native: list[Tracked] | None
    heap_present: int | None
    code_present: int | None
    started: bool
    took_ns: int
    why: str


def ask_jvm(target: Target, attachable: bool | None, anon: U64) -> tuple[Asked, U64]:
    """Return what ``target`` answers, and the ranges of its heap and its generated code, u64[k, 2].

    ``attachable`` is what its performance data say of that, ``anon`` what is anonymous and in RAM.
    Raises ProcessGone.
    """
    if attachable:
        return parsed(ask(target, COMMANDS), anon)
    why = NO_JVM if attachable is None else CANNOT
    return parsed(Answers({}, started=False, took_ns=0, why=why), anon)


def parsed(answers: Answers, anon: U64) -> tuple[Asked, U64]:
    """Return the numbers in ``answers``, and the ranges."""
    lines = {command: text.split("\n") for command, text in answers.texts.items()}
    heap, code, native = lines.get(HEAP, []), lines.get(CODE, []), lines.get(NATIVE)
    of_heap, of_code = bounds(heap), bounds(code)
    return Asked(
        heap_spaces(heap) or None, metaspaces(lines.get(METASPACE, [])) or None,
        code_segments(code) or None, None if native is None else tracked(native),
        bytes_within(of_heap, anon) if len(of_heap) else None,
        bytes_within(of_code, anon) if len(of_code) else None,
        answers.started, answers.took_ns, answers.why,
    ), union(np.concatenate([of_heap, of_code]))


def bounds(lines: list[str]) -> U64:
    """Return the ranges that are said to be reserved, u64[k, 2], sorted and joined."""
    found = [(int(match[1], 16), int(match[2], 16))
             for line in lines if (match := BOUNDS.search(line))]
    return union(np.array([pair for pair in found if pair[0] < pair[1]], np.uint64).reshape(-1, 2))


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
