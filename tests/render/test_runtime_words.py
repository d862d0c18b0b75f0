"""Sentences about the heap of a runtime: each appears when its rule says so."""

from __future__ import annotations

import io
import json

from pagewalk.heap.golang import Amount, Go
from pagewalk.render.heap_words import answers, reading
from pagewalk.render.json import heap as write_json
from pagewalk.render.runtime_words import go_rows
from tests.render.written import MAIN, MIB, heap

OBTAINED, OBJECTS, STACKS, FREE, RELEASED, REST = (
    Amount(mib * MIB, present * MIB, present * MIB)
    for mib, present in ((64, 31), (20, 19), (4, 2), (10, 9), (29, 0), (1, 1))
)
GO = Go("go1.24.4", "", OBTAINED, OBJECTS, STACKS, FREE, RELEASED, REST)
OF_GO = heap(allocator="Go", go=GO, tcache=None, mmapped=None)


def test_what_could_be_had_back_is_said_and_nothing_of_malloc() -> None:
    assert [*answers(OF_GO)] == [
        "debug.FreeOSMemory() would give back 9216 KiB, and what it finds unreachable."]
    assert reading(OF_GO).startswith("the heap of Go's runtime, go1.24.4; ")


def test_a_program_with_both_has_both() -> None:
    both = [*answers(heap(MAIN, go=GO))]
    assert "FreeOSMemory" in both[0] and both[1].startswith("malloc_trim(0) would give back")


def test_what_a_forked_process_shares_is_said() -> None:
    shared = OF_GO._replace(go=GO._replace(free=FREE._replace(exclusive=MIB)))
    assert "9216 KiB (1024 KiB to the machine: the rest is shared" in " ".join(answers(shared))
    unknown = OF_GO._replace(go=GO._replace(free=FREE._replace(exclusive=None)))
    assert "machine" not in " ".join(answers(unknown))


def test_what_is_released_and_still_in_ram_is_said() -> None:
    lazily = OF_GO._replace(go=GO._replace(released=Amount(29 * MIB, 5 * MIB, 5 * MIB)))
    assert [*answers(lazily)][1].startswith("5120 KiB were given back but are still in RAM")


def test_estimates_are_called_so_and_what_is_not_known_has_its_reason() -> None:
    ran = OF_GO._replace(exact=False, why="it ran")
    assert [*answers(ran)][-1].startswith("These are estimates: it ran")
    withheld = heap(allocator="Go", go=Go("go1.99", "it is new"), exact=False, why="it is new")
    assert [*answers(withheld)] == ["What is free inside Go's heap is not known: it is new."]
    assert go_rows(Go("go1.99", "it is new")) == []


def test_a_version_with_escape_sequences_is_shown_harmless() -> None:
    assert "\x1b" not in reading(OF_GO._replace(go=GO._replace(version="go\x1b[2J")))


def test_the_table_adds_up() -> None:
    _, *lines, total = [row[1:] for row in go_rows(GO)]
    for column in (0, 1):
        assert sum(int(line[column]) for line in lines) == int(total[column])


def test_json_has_every_amount() -> None:
    out = io.StringIO()
    write_json(OF_GO, out)
    found = json.loads(out.getvalue())
    assert found["allocator"] == "Go" and found["obtained"] is None
    assert found["go"]["version"] == "go1.24.4" and found["go"]["free"] == FREE._asdict()
    out = io.StringIO()
    write_json(heap(go=Go("go1.99", "it is new")), out)
    assert json.loads(out.getvalue())["go"]["free"] is None
