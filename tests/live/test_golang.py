"""What Go's heap holds, against the runtime's own numbers and what it then really gives back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.heap.buildinfo import built_by
from pagewalk.heap.heap import Heap
from pagewalk.sources import Source
from tests.kernel_says import read_smaps
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.live.test_heap_bounds import opened, stopped_once
from tests.targets.answering import Answering, answering
from tests.targets.gos import GOS, PATTERNS, compiled, holding

pytestmark = pytest.mark.live

PARTS = ("objects", "stacks", "free", "released", "set_aside")


def at_rest(program: Answering, *options: str) -> tuple[dict[str, Any], dict[str, int], int]:
    """Return what heap says, what the runtime says before and after, and its heap in smaps."""
    before, anonymous = program.ask("i"), in_heap(program.pid)
    ran = pagewalk("heap", program.pid, "--format", "json", *options)
    assert in_heap(program.pid) == anonymous  # reading has faulted nothing in
    assert program.ask("i") == before
    assert ran.json["exact"] is True and ran.code == 0, ran.json["why"]
    return ran.json, before, anonymous


def in_heap(pid: int) -> int:
    """Return the anonymous bytes in RAM of Go's heap, in smaps.

    Go asks for addresses between the program and where the kernel puts what has none.
    """
    return sum(vma.fields["Anonymous"] for vma in read_smaps(pid)
               if 1 << 32 <= vma.start < 0x7E << 40 and not vma.name) << 10


@pytest.mark.parametrize("go", GOS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_what_the_runtime_says_and_what_it_gives_back(go: str, pattern: str) -> None:
    with holding(go, pattern) as program:
        found, said, before = look_again(lambda: at_rest(program))
        after_free = program.ask("f")
        given_back = before - in_heap(program.pid)
    heap = found["go"]
    assert found["allocator"] == "Go" and heap["version"].startswith("go1.")
    size = {name: heap[name]["size"] for name in PARTS}
    present = {name: heap[name]["present"] for name in PARTS}
    assert size["objects"] == said["heap_inuse"]
    assert size["stacks"] == said["stack_inuse"]
    assert size["free"] + size["released"] + size["set_aside"] == said["heap_idle"]
    assert sum(size.values()) == heap["obtained"]["size"] == said["heap_sys"] + said["stack_inuse"]
    # Pages that a processor keeps may have been given back before: the runtime counts these too.
    assert 0 <= said["heap_released"] - size["released"] <= size["set_aside"]
    assert sum(present.values()) == heap["obtained"]["present"] == before
    assert heap["obtained"]["exclusive"] == before
    assert present["released"] == 0
    # It collects garbage first. There is none; but doing so may touch stacks for the first time,
    # and takes and returns some, and returns what processors keep.
    assert after_free["heap_inuse"] == said["heap_inuse"]
    untouched = size["stacks"] - present["stacks"]
    more = after_free["stack_inuse"] - said["stack_inuse"]
    least = present["free"] - untouched - max(more, 0)
    assert least <= given_back <= present["free"] + present["set_aside"] + max(-more, 0)


def stopped(program: Answering, source: Source) -> tuple[Heap, dict[str, int]]:
    """Return what it holds, read while it is stopped, and what the runtime says of that."""
    before = program.ask("i")
    assert source.live is not None
    heap, ms = stopped_once(source, 5000, built_by(source.live.target))
    assert program.ask("i") == before
    assert heap is not None and heap.exact and ms > 0
    return heap, before


@pytest.mark.parametrize("go", GOS)
@pytest.mark.parametrize("how", ["-ldflags=-s -w", "-buildmode=pie", "withc.go"])
def test_it_is_the_same_however_it_was_built_and_while_stopped(go: str, how: str) -> None:
    with holding(go, "large", how) as program, opened(program.pid) as source:
        found, said, _ = look_again(lambda: at_rest(program))
        heap, said_then = look_again(lambda: stopped(program, source))
    # With C there are stacks of threads besides, which the runtime does not count.
    assert found["go"]["objects"]["size"] == said["heap_inuse"]
    assert found["go"]["stacks"]["size"] == said["stack_inuse"]
    assert found["allocator"] == ("glibc" if how == "withc.go" else "Go")
    assert bool(found["arenas"]) is (how == "withc.go")
    assert heap.go is not None and heap.go.objects is not None and heap.go.stacks is not None
    assert heap.go.objects.size == said_then["heap_inuse"]
    assert heap.go.stacks.size == said_then["stack_inuse"]


@contextmanager
def in_memory(program: Path) -> Iterator[Path]:
    """Yield the path of a copy of ``program`` in a memfd, which is a file of a tmpfs."""
    written = os.memfd_create("holds")
    with open(written, "wb") as copy:
        copy.write(program.read_bytes())
        copy.flush()
        read = os.open(f"/proc/self/fd/{written}", os.O_RDONLY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{read}")
    finally:
        os.close(read)


@pytest.mark.parametrize("go", GOS)
def test_its_program_may_be_on_a_tmpfs(go: str) -> None:
    with in_memory(compiled(go)) as path, answering([path, "small"]) as (program, _):
        found, said, _ = look_again(lambda: at_rest(program))
        program_in_smaps = [vma.fields["Anonymous"] for vma in read_smaps(program.pid)
                            if vma.name.startswith("/memfd:holds")]
    assert found["go"]["objects"]["size"] == said["heap_inuse"]
    assert found["written"] == sum(program_in_smaps) << 10 > 0


@pytest.mark.parametrize("go", GOS)
def test_the_stacks_of_goroutines_are_told_from_objects(go: str) -> None:
    with holding(go, "stacks") as program:
        found, _, _ = look_again(lambda: at_rest(program))
    # 300 of some 25 KiB each.
    assert found["go"]["stacks"]["present"] > 300 * (20 << 10) > found["go"]["objects"]["present"]


def kinds(program: Answering) -> dict[str, dict[str, Any]]:
    groups = pagewalk("maps", program.pid, "--by", "kind", "--format", "json").json["groups"]
    return {group["group"]: group for group in groups}


@pytest.mark.parametrize("go", GOS)
def test_its_heap_is_a_group_or_is_not_told_apart(go: str) -> None:
    def look() -> dict[str, dict[str, Any]]:
        before = in_heap(program.pid)
        found = kinds(program)
        if "go" in found:
            assert found["go"]["anon"] == in_heap(program.pid) == before
        return found

    with holding(go, "stacks") as program:
        found = look_again(look)
        version = pagewalk("heap", program.pid, "--format", "json").json["go"]["version"]
    random = int(version.split(".")[1]) >= 26
    assert ("go" in found) is not random
    # Threads wait on stacks in the heap, which is no thread's stack.
    assert "thread_stack" not in found and "arena" not in found


def test_the_screen_says_what_could_be_reclaimed() -> None:
    with holding(GOS[0], "huge") as program:
        out = pagewalk("heap", program.pid).out
    assert "debug.FreeOSMemory() would give back" in out and "GO HEAP" in out
    assert "next malloc" not in out
