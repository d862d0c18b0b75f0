"""Why an armed recorder made a recording: the screen and the document."""

from __future__ import annotations

import io
import json
from typing import Any

from pagewalk.history.armed_recording import ArmedRecording, SharedFile
from pagewalk.history.trigger import ARMED, FULL, NEAR, STALLED, Trigger, causes, scrubbed, withheld
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.render import view
from pagewalk.render.trigger_table import ago, answers
from pagewalk.system.recorded_processes import Refused
from tests.armed_by_hand import BEFORE, KILLED, MIB, NOW, TRIGGER


class Terminal(io.StringIO):
    """A terminal, as far as a screen asks."""

    def isatty(self) -> bool:
        return True


def screen(trigger: Trigger, recorded: tuple[int, ...] = (8,), out: Any = None, **more: Any) -> str:
    out = out or io.StringIO()
    view("text", "trigger")(ArmedRecording(trigger, recorded, **more), "kill.parquet", out)
    return str(out.getvalue())


def document(trigger: Trigger) -> Any:
    out = io.StringIO()
    view("json", "trigger")(ArmedRecording(trigger, (8,)), "kill.parquet", out)
    return json.loads(out.getvalue())


def test_the_first_sentences_say_who_was_killed_and_what_the_group_was_made_of() -> None:
    assert list(answers(TRIGGER)) == [
        "The kernel killed shop (7), with 40960 KiB of anonymous memory, 1024 KiB of files and"
        " 10240 KiB of shared memory in RAM: cgroup /app could not keep its limit.",
        "300 ms before this was noticed 65536 KiB were charged, of a limit of 65536 KiB: 49152 KiB"
        " anonymous, 10240 KiB tmpfs and shared, 4096 KiB page cache, 2048 KiB of the kernel;"
        " 5120 KiB in swap.",
        # 48 of 64 MiB
        "Most of it was anonymous memory of its processes, which goes nowhere but to swap: 75 %.",
    ]


def test_a_kill_of_the_machines_is_no_matter_of_the_limit() -> None:
    machine = TRIGGER._replace(kills=(KILLED._replace(of_limit=False),))
    assert next(answers(machine)).endswith("in RAM: the machine was out of memory.")


def test_what_the_log_does_not_tell_is_told_by_who_is_gone() -> None:
    hidden = TRIGGER._replace(kills=None)
    assert next(answers(hidden)) == (
        "The kernel counted 1 kill, and its log could not be read; gone since it was looked at"
        " before: shop (7).")
    assert "partial: who was killed: the kernel's log could not be read" in screen(hidden)
    assert document(hidden)["killed"] is None and document(hidden)["gone"] == [7]


def test_of_a_group_that_is_gone_what_was_there_before_is_told() -> None:
    now = TRIGGER.now._replace(numbers=GroupNumbers(), processes=0, members=())
    gone = TRIGGER._replace(reason=FULL, told=("removed",), now=now, kills=None, events={})
    assert next(answers(gone)).startswith("300 ms before this was noticed 65536 KiB were charged")
    told = document(gone)
    assert (told["now"]["charged"], told["now"]["swap"]) == (None, None)
    assert told["before"]["swap"] == 5 * MIB and told["gone"] == [7, 8]


def test_each_largest_kind_has_its_sentence() -> None:
    for name, word in (("anon", "anonymous"), ("shmem", "tmpfs"), ("kernel", "of the kernel"),
                       ("file", "page cache")):
        stat = {"anon": 0, "file": 0, "shmem": 0, "kernel": 0, name: 9 * MIB}
        if name == "shmem":
            stat["file"] = 9 * MIB  # of which it is a part
        before = TRIGGER.now._replace(numbers=BEFORE._replace(current=9 * MIB, stat=stat))
        now = before._replace(numbers=NOW._replace(current=MIB))
        *_, said = answers(TRIGGER._replace(before=before, now=now))
        assert said.startswith("Most of it was") and word in said and said.endswith(": 100 %.")
        assert causes(before, 2) == {name: 9 * MIB}


def test_of_a_kill_the_moment_tells_at_which_what_was_killed_was_there() -> None:
    """Else nothing may have been read for hours, and not all may be freed yet."""
    before = TRIGGER.before
    assert before is not None
    numbers = BEFORE._replace(current=4 * MIB)
    said = " ".join(answers(TRIGGER._replace(before=before._replace(numbers=numbers))))
    assert "before this was noticed 4096 KiB were charged" in said
    early = before._replace(numbers=numbers, members=TRIGGER.now.members)
    said = " ".join(answers(TRIGGER._replace(before=early)))
    assert "Then 16384 KiB were charged" in said


def test_before_a_kill_there_is_only_now() -> None:
    near = TRIGGER._replace(reason=NEAR, kills=(), events={})
    first, *_ = answers(near)
    assert first.startswith("Then 16384 KiB were charged")


def test_the_table_adds_up() -> None:
    lines = [line.split(None, 1) for line in screen(TRIGGER).split("\n\n")[1].splitlines()[1:]]
    rows = {what: int(amount) for amount, what in lines}
    parts = ("anonymous memory", "tmpfs and shared memory", "page cache of files",
             "the kernel's, not told apart")
    assert sum(rows[name] for name in parts) == rows["charged"] == 65536
    assert rows["of it without page cache"] == 65536 - 4096
    assert rows["in swap, beside that"] == 5120


def test_what_became_of_each_process() -> None:
    rows = {line.split()[0]: line.split() for line in screen(TRIGGER).splitlines()
            if line.strip()[:1] in ("7", "8")}
    assert rows["7"][-2:] == ["shop", "killed"] and rows["8"][-1] == "web"


def test_the_document_has_both_moments() -> None:
    found = document(TRIGGER)
    assert found["before"]["charged"] == 64 * MIB and found["now"]["charged"] == 16 * MIB
    assert found["events"] == {"max": 23, "oom": 1, "oom_kill": 1}
    assert [one["pid"] for one in found["killed"]] == [7]
    assert document(TRIGGER._replace(before=None))["before"] is None


def test_what_memory_stat_does_not_tell_has_a_row_too() -> None:
    assert TRIGGER.before is not None
    before = TRIGGER.before._replace(numbers=BEFORE._replace(current=65 * MIB))
    more = TRIGGER._replace(before=before)
    assert "1024    not in memory.stat: charged in advance, counted late" in screen(more)
    assert document(more)["before"]["untold"] == MIB
    assert document(TRIGGER)["before"]["untold"] == 0


def test_without_memory_stat_nothing_is_said_to_be_zero() -> None:
    now = TRIGGER.now._replace(numbers=BEFORE._replace(stat=None, swap_current=None))
    blind = TRIGGER._replace(reason=NEAR, now=now, before=None, kills=(), events={})
    assert list(answers(blind)) == ["Then 65536 KiB were charged, of a limit of 65536 KiB."]
    assert " 0 " not in screen(blind).partition("PID")[0]
    assert "partial: what the charge was made of: memory.stat could not be read" in screen(blind)
    told = document(blind)
    assert [told["now"][name] for name in ("kinds", "untold", "without_page_cache", "swap")] == [
        None, None, None, None]
    assert [row.partition(":")[0] for row in told["partial"]] == ["what the charge was made of"]


def test_of_a_group_that_was_never_read_no_amount_is_told() -> None:
    now = TRIGGER.now._replace(numbers=GroupNumbers(), processes=0, members=())
    gone = TRIGGER._replace(told=("removed",), now=now, before=None)
    assert list(answers(gone))[1:] == [  # behind who was killed
        "Nothing of what was charged could be read before the cgroup was removed."]


def test_who_was_killed_is_withheld_only_if_somebody_was() -> None:
    near = TRIGGER._replace(reason=NEAR, kills=None, events={"max": 3})
    assert withheld(near) == []
    assert [row.what for row in withheld(TRIGGER._replace(kills=None))] == ["who was killed"]
    assert withheld(TRIGGER) == []


def test_what_version_2_charges_beside_pages_is_not_said_to_be_charged_in_advance() -> None:
    stat = {**(BEFORE.stat or {}), "kernel": 2 * MIB, "percpu": MIB, "sock": 3 * MIB, "zswap": MIB}
    before = TRIGGER.now._replace(numbers=BEFORE._replace(current=67 * MIB, stat=stat))
    said = screen(TRIGGER._replace(before=before))
    for row in ("3072    socket buffers", "1024    per-CPU memory", "1024    zswap"):
        assert row in said
    assert "not in memory.stat" not in said  # 62 + 2 + 3 MiB
    assert causes(before, 2)["kernel"] == 5 * MIB


def test_up_to_5_17_it_may_be_the_kernels() -> None:
    stat = {name: held for name, held in (BEFORE.stat or {}).items() if name != "kernel"}
    before = TRIGGER.now._replace(numbers=BEFORE._replace(stat=stat))
    assert "2048    not in memory.stat: the kernel's, charged in advance" in screen(
        TRIGGER._replace(before=before))


def test_most_of_it_is_more_than_half_of_the_charge() -> None:
    # 48 MiB of what memory.stat tells, but it tells only half
    before = TRIGGER.now._replace(numbers=BEFORE._replace(current=128 * MIB))
    *_, said = answers(TRIGGER._replace(before=before))
    assert said.startswith("The largest part of it was anonymous") and said.endswith(": 37 %.")


def test_who_was_killed_is_said_whatever_the_reason_is() -> None:
    full = TRIGGER._replace(reason=FULL, events={"oom": 1})
    assert next(answers(full)).startswith("The kernel killed shop (7), with 40960 KiB")
    near = TRIGGER._replace(reason=NEAR, kills=(), events={"max": 1})
    assert next(answers(near)).startswith("Then ")


def test_of_several_kills_the_last_is_told_first_and_how_long_before_the_others_were() -> None:
    first = KILLED._replace(pid=5, name="old", log_ns=4 * 10**9)
    last = KILLED._replace(log_ns=65 * 10**9)
    both = list(answers(TRIGGER._replace(kills=(first, last))))
    assert both[0].startswith("The kernel killed shop (7), with")
    assert both[1].startswith("61.0 s before that it killed old (5), with")
    near = TRIGGER._replace(reason=NEAR, kills=(first,), events={})
    assert next(answers(near)).startswith("Then ")
    said = " ".join(screen(near).split())
    assert "Before this, the kernel killed old (5), with 40960 KiB" in said
    assert "no recording told of it yet" in said


def test_what_was_felt_is_told_from_what_the_whole_machine_felt() -> None:
    for told, words in (
        (("pressure",), "under pressure: its tasks waited for memory"),
        (("critical", "machine pressure"), "under pressure: little of it could be reclaimed"),
        (("machine pressure",), "while tasks somewhere on the machine waited for memory"),
    ):
        assert words in screen(TRIGGER._replace(reason=STALLED, told=told)).split("\n\n")[0]


def test_of_several_kills_the_log_may_name_some_only() -> None:
    both = TRIGGER._replace(events={"oom_kill": 2}, now=TRIGGER.now._replace(
        processes=0, members=()))
    assert list(answers(both))[1] == ("The kernel counted 2 kills, and its log names 1 of them;"
                                      " gone since it was looked at before: web (8).")
    none = TRIGGER._replace(events={"oom_kill": 1}, kills=())
    assert next(answers(none)).startswith("The kernel counted 1 kill, and its log names nobody; ")


def test_a_recording_without_a_process_says_so_and_names_none_to_show() -> None:
    assert "No page of a process is in this recording" not in screen(TRIGGER)
    assert "the cgroup had no process any more when they" in screen(TRIGGER, ())
    new = TRIGGER._replace(reason=ARMED, now=TRIGGER.now._replace(processes=0, members=()),
                           before=None, kills=None)
    assert "in this recording: the cgroup had no process.\n" in screen(new, ())
    refused = (Refused(9, ("cannot read process 9",)),)
    said = screen(TRIGGER, (), refused=refused)
    assert "the processes of the cgroup could not be recorded" in said
    assert "partial: some processes of the cgroup: 1 could not be recorded; process 9:" in said
    said = screen(TRIGGER, (8,), Terminal()).replace("\xa0", " ")
    assert "show kill.parquet:8" in said and "share --cgroup /app" in said
    assert "show kill.parquet" not in screen(TRIGGER, (), Terminal()).replace("\xa0", " ")
    assert document(TRIGGER)["recorded"] == [8]


def test_which_file_in_tmpfs_it_was() -> None:
    shared = (SharedFile("/memfd:a\n (deleted)", 8, "web", 9 * MIB),)
    said = " ".join(screen(TRIGGER, shared=shared).split())
    assert r"web (8) had 9216 KiB of /memfd:a\n (deleted) in its RSS" in said
    less = TRIGGER.now._replace(numbers=BEFORE._replace(stat={"anon": MIB, "file": 0, "shmem": 0}))
    assert "in its RSS" not in screen(TRIGGER._replace(before=less), shared=shared)


def test_a_cgroup_that_is_scrubbed_or_gone_is_not_to_be_looked_at() -> None:
    hidden = screen(scrubbed(TRIGGER), (8,), Terminal()).replace("\xa0", " ")
    assert "a cgroup (its path: scrubbed): killed" in hidden and "share --" not in hidden
    gone = TRIGGER._replace(told=("removed",))
    assert "share --" not in screen(gone, (8,), Terminal()).replace("\xa0", " ")


def test_how_long_something_was_is_in_a_unit_that_people_read() -> None:
    seconds = {0.02: "20 ms", 1: "1.0 s", 119: "119.0 s", 120: "2.0 min", 7200: "2.0 h"}
    assert {time: ago(int(time * 10**9)) for time in seconds} == seconds


def test_of_the_root_the_kernel_tells_no_charge() -> None:
    root = TRIGGER._replace(reason=NEAR, path="/", now=TRIGGER.now._replace(
        numbers=TRIGGER.now.numbers._replace(current=None)))
    said = " ".join(answers(root))
    assert "does not tell what the root is charged for" in said and "removed" not in said
