"""What a recording made by hand says of its processes together, and of a part of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import (
    BadRecording,
    BadRequest,
    BadTarget,
    NotPermitted,
    PagewalkError,
    ProcessGone,
)
from pagewalk.proc.chosen import Chosen, Wanted, choose
from pagewalk.proc.objects import Object
from pagewalk.proc.processes import Process
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.system.endings import Held
from pagewalk.system.peak import CHARGED, Charged
from pagewalk.system.recorded_processes import SET, Ending, RecordedProcesses, RecordedSet, Refused
from tests.snapshot.by_hand import FACTS, META

# pid: name, parent, real user, cgroup; 12 and 13 have one address space, 15 and 16 were refused
TABLE: dict[int, tuple[str, int, int, str | None]] = {
    10: ("server", 1, 7, "/app"), 11: ("worker", 10, 7, "/app/web"),
    12: ("worker", 10, 8, "/app/web"), 13: ("worker", 12, 8, "/app/web"),
    14: ("other", 1, 8, "/db/web"),
}
KEY = (1, 2)
ALL = Charged("/app", 4096, None)
FOUND = RecordedSet(
    "Linux", "ebpf",
    tuple(Chosen(Process(pid, name, f"/bin/{name}", 0, 4096, "", f"/bin/{name} run.py"), parent)
          for pid, (name, parent, _, _) in TABLE.items()) + tuple(
        Chosen(Process(pid, "hidden", "", 5, 0), 1) for pid in (15, 16, 17)),
    ((10,), (11,), (12, 13), (14,), (15,), (16,), (17,)), (11,), (14,),
    (Refused(15, ("cannot read maps", "permission denied", "run as root")),
     Refused(16, ("it changed",))), (17,), True, (Ending(*KEY, (10, 11), True),), ALL,
    {7: "ann", 8: "bob"})


def machine(path: Path, found: Any = FOUND, **meta: Any) -> RecordedProcesses:
    with whole_file(str(path)) as out:
        writer = Writer(out)
        rows = {"pid": list(TABLE), "mm": [12 if pid == 13 else pid for pid in TABLE],
                "uid": [uid for _, _, uid, _ in TABLE.values()],
                "cgroup": [group for _, _, _, group in TABLE.values()]}
        amounts = {name: [4096] * len(TABLE) for name in (
            "rss", "pss", "uss", "swap", "anon", "file", "shmem", "hugetlb", "freed")}
        amounts["uss"][3] = None  # type: ignore[call-overload]
        writer.add("process", rows | amounts)
        if found is not None:
            writer.add("document", {"name": [SET], "text": [to_text(found)]})
        writer.close(META._replace(**meta), FACTS)
    return RecordedProcesses(Recording(str(path)))


@pytest.mark.parametrize(("wanted", "pids"), [
    (Wanted(words=("10",)), [10]),
    (Wanted(words=("worker",)), [11, 12, 13]),
    (Wanted(words=("/bin/other",)), [14]),
    (Wanted(words=("run.py",)), [10, 11, 12, 13, 14]),
    (Wanted(trees=("10",)), [10, 11, 12, 13]),
    (Wanted(users=("ann",)), [10, 11]),
    (Wanted(users=("8", "5")), [12, 13, 14, 15, 16, 17]),
    (Wanted(everyone=True), [10, 11, 12, 13, 14, 15, 16, 17]),
])  # fmt: skip
def test_words_are_looked_up_in_it(wanted: Wanted, pids: list[int], tmp_path: Path) -> None:
    with closing(machine(tmp_path / "a").recording) as recording:
        where = RecordedProcesses(recording)
        assert [one.process.pid for one in choose(wanted, where.listed())] == pids


def test_no_user_or_process_of_this_machine_is_meant(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    with pytest.raises(BadTarget, match="there is no user 'root'"):
        choose(Wanted(users=("root",)), where.listed())
    with pytest.raises(ProcessGone, match="process 1 does not exist"):
        choose(Wanted(words=("1",)), where.listed())


def test_a_cgroup_is_named_by_its_path_or_the_last_part_of_it(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    assert where.below("/app") == where.below("app") == where.below("app/") == [10, 11, 12, 13]
    assert where.below("/app/web") == [11, 12, 13] and where.below("db") == [14]
    with pytest.raises(BadTarget, match=r"(?s)2 cgroups of .*/app/web.*/db/web"):
        where.below("web")
    with pytest.raises(BadTarget, match=r"no process of .* is in a cgroup called 'we'"):
        where.below("we")


def test_a_part_of_a_set_is_not_the_whole(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    assert where.by_memory([13, 12, 10]) == [[10], [12, 13]]
    assert where.shared_outside([[12, 13], [10]]) == set()
    assert where.shared_outside([[13], [10], [14]]) == {13, 14}
    held = Held(Object(*KEY, "/memfd:x", 4096, False), [11, 10], [1, 1])
    assert where.end({KEY: held}) == {KEY: True}
    assert where.end({KEY: held._replace(pids=[10])}) == {KEY: False}
    assert where.end({(3, 4): held}) == {(3, 4): None}
    assert where.charged(frozenset(TABLE)) == ALL
    assert where.charged(frozenset([10])).why == Withheld(
        CHARGED, "the recording tells it of all its processes together only")


def test_totals_are_in_the_rows_unless_something_is_withheld(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    found = where.amounts([one.process for one in FOUND.processes], lambda: False)
    assert set(found.amounts) == {10, 12, 14} and found.source == "ebpf"  # 11 is odd, 13 lacks one
    assert found.amounts[10]["uss"] == 4096


def test_who_could_not_be_recorded_is_refused_as_then(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    for pid, kind, text in ((15, NotPermitted, "cannot read maps: permission denied; run as root"),
                            (16, PagewalkError, "it changed"), (17, ProcessGone, "had ended")):
        with pytest.raises(kind, match=text), where.opened(pid):
            pass


def test_users_and_cgroups_have_the_names_that_they_had(tmp_path: Path) -> None:
    where = machine(tmp_path / "a")
    assert [where.user_of(pid, 0) for pid in (10, 12, 99)] == ["ann", "bob", "0"]
    assert where.group_of()(11) == "/app/web" and where.group_of()(99) is None
    with pytest.raises(BadRequest, match="--scrub"):
        machine(tmp_path / "b", scrubbed=True).group_of()


def test_a_recording_without_or_with_a_damaged_set_is_a_sentence(tmp_path: Path) -> None:
    for number, bad in enumerate((None, ["x"], FOUND._replace(groups=((1, "x"),)))):
        with pytest.raises(BadRecording):
            assert machine(tmp_path / str(number), bad).told
