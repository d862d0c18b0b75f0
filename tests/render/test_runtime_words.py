"""Sentences about the heap of a runtime: each appears when its rule says so."""

from __future__ import annotations

import io
import json

from pagewalk.heap.golang import TORN, Amount, Go
from pagewalk.heap.hotspot import Space
from pagewalk.heap.jvm import Asked, Tracked
from pagewalk.render.heap_words import answers, reading
from pagewalk.render.json import heap as write_json
from pagewalk.render.runtime_words import go_rows, jvm_answers
from tests.render.written import MAIN, MIB, heap

OBTAINED, OBJECTS, STACKS, FREE, RELEASED, REST = (
    Amount(mib * MIB, present * MIB, present * MIB)
    for mib, present in ((64, 31), (20, 19), (4, 2), (10, 9), (29, 0), (1, 1))
)
GO = Go("go1.24.4", "", OBTAINED, OBJECTS, STACKS, FREE, RELEASED, REST)
OF_GO = heap(allocator="Go", go=GO, tcache=None, mmapped=None)


def test_what_could_be_reclaimed_is_said_and_nothing_of_malloc() -> None:
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
    assert "still in RAM" not in " ".join(answers(lazily._replace(exact=False)))  # it just ran


def test_estimates_are_called_so_and_what_is_not_known_has_its_reason() -> None:
    ran = OF_GO._replace(exact=False, why="it ran")
    assert [*answers(ran)][-1].startswith("These are estimates: it ran")
    withheld = heap(allocator="Go", go=Go("go1.99", "it is new"), exact=False, why="it is new")
    assert [*answers(withheld)] == ["What is free inside Go's heap is not known: it is new."]
    assert go_rows(Go("go1.99", "it is new")) == []


def test_torn_records_are_a_reason_to_stop_it() -> None:
    torn = heap(allocator="Go", go=Go("go1.24", TORN), exact=False, why=TORN, stop_helps=True)
    assert "with --freeze" in " ".join(answers(torn))
    assert "--freeze" not in " ".join(answers(torn._replace(stop_helps=False)))


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


SPACES = [Space("eden", 8 * MIB, 2 * MIB), Space("old\x1b[2J", 8 * MIB, 3 * MIB)]
ASKED = Asked(SPACES, SPACES[:1], None, None, 6 * MIB, None, True, 5_000_000, "")


def test_what_a_jvm_answered_is_said_and_what_it_was_disturbed_by() -> None:
    found = [*jvm_answers(ASKED)]
    assert found[0].startswith("the Java heap now, used of committed, in all 5120 of 16384 KiB: e")
    assert found[0].endswith("; 6144 KiB in RAM")
    assert found[1] == "metaspace, used of committed: eden 2048 of 8192 KiB"
    assert found[2].startswith("at least 1024 KiB of the Java heap are in RAM and not in use")
    assert "5 ms, and started its attach listener" in found[3] and len(found) == 4
    assert "at least" not in " ".join(jvm_answers(ASKED._replace(heap_present=5 * MIB)))
    assert "\x1b" not in "".join(found)
    assert "listener" not in "".join(jvm_answers(ASKED._replace(started=False)))


def test_native_memory_is_named_largest_first_and_the_rest_together() -> None:
    parts = [Tracked(name, 9 * MIB, (at + 1) * MIB) for at, name in enumerate("abcdefgh")]
    said = " ".join(jvm_answers(ASKED._replace(native=parts)))
    assert "committed: h 8192 KiB, g 7168 KiB" in said and "2 others 3072 KiB" in said
    assert "does not track" in " ".join(jvm_answers(ASKED._replace(native=[])))


def test_a_jvm_that_was_not_asked_says_why() -> None:
    silent = Asked(*(None,) * 6, False, 0, "it is \x1b[2J none")
    found = [*jvm_answers(silent)]
    assert len(found) == 1 and "\x1b" not in found[0]
    assert found[0].startswith("not answered: it is ")


def test_json_has_what_was_answered() -> None:
    out = io.StringIO()
    write_json(heap(MAIN, asked=ASKED), out)
    found = json.loads(out.getvalue())["asked"]
    assert found["heap"][0] == {"name": "eden", "capacity": 8 * MIB, "used": 2 * MIB}
    assert found["code_cache"] is None and found["started"] is True
