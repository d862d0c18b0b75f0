"""Kills in the kernel's log, from records as Linux 6.12 writes them."""

from __future__ import annotations

import os

import pytest

from pagewalk.proc.kmsg import Causes, Kill, Record, parse_kills, read_kills

KIB = 1 << 10
WHY = (
    b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,"
    b"task_memcg=/a/b,task=python,pid=168,uid=0"
)
KILLED = (
    b"Memory cgroup out of memory: Killed process 168 (python) total-vm:79472kB, anon-rss:3916kB,"
    b" file-rss:5868kB, shmem-rss:64000kB, UID:0 pgtables:192kB oom_score_adj:0"
)
AT = 3_000
FOUND = Kill(168, "python", 3916 * KIB, 5868 * KIB, 64000 * KIB, "/a/b", True, AT, "/a")


def kills_in(texts: list[bytes], begun: Causes | None = None) -> list[Kill]:
    """Return what records of AT tell of."""
    return parse_kills([Record(AT, text) for text in texts], {} if begun is None else begun)


def test_a_kill_is_told_by_two_records() -> None:
    assert kills_in([b"python invoked oom-killer: gfp_mask=0xcc0", WHY, KILLED]) == [FOUND]


def test_the_log_may_be_read_between_the_two() -> None:
    begun: Causes = {}
    assert kills_in([WHY], begun) == []
    unknown = FOUND._replace(group=None, limit_cgroup=None)
    assert kills_in([KILLED, KILLED], begun) == [FOUND, unknown]
    assert not begun


def test_without_the_first_the_group_is_not_known() -> None:
    assert kills_in([KILLED]) == [FOUND._replace(group=None, limit_cgroup=None)]


def test_the_machine_was_out_of_memory() -> None:
    why = WHY.replace(b"MEMCG,", b"NONE,").replace(b"oom_memcg=/a,", b"global_oom,")
    killed = KILLED.replace(b"Memory cgroup out", b"Out")
    [kill] = kills_in([why, killed])
    assert kill == FOUND._replace(of_limit=False, limit_cgroup=None)


def test_a_name_may_hold_what_records_are_made_of() -> None:
    for name, told in ((b"a) x", "a) x"), (b"\\x0a,pid=1,uid=2", "\n,pid=1,uid=2"),
                       (b"\\xff\\xfe", "\udcff\udcfe"), (b"(\\x5cx41)", "(\\x41)")):
        records = [WHY.replace(b"=python", b"=" + name),
                   KILLED.replace(b"(python)", b"(" + name + b")")]
        assert kills_in(records) == [FOUND._replace(name=told)]


@pytest.mark.parametrize(("limited", "group", "told"), [
    (b"/", b"/a/b", ("/a/b", "/")), (b"/a/b", b"/a/b", ("/a/b", "/a/b")),
    (b"/other", b"/a/b", (None, None)),
    # What is called like the group of others, or like what follows one.
    (b"/v,task=q", b"/v,task=q", ("/v,task=q", "/v,task=q")),
    (b"/e/x,task_memcg=/v/z", b"/e/x,task_memcg=/v/z", ("/e/x,task_memcg=/v/z",) * 2),
    (b"/e,oom_memcg=/v", b"/e,oom_memcg=/v/w", ("/e,oom_memcg=/v/w", "/e,oom_memcg=/v")),
    (b"/", b"/x,oom_memcg=/v,task_memcg=/v/z", (None, None)),  # may be read in two ways
])
def test_a_group_is_not_taken_for_another(
    limited: bytes, group: bytes, told: tuple[str | None, str | None]
) -> None:
    why = WHY.replace(b"oom_memcg=/a,task_memcg=/a/b", b"oom_memcg=%b,task_memcg=%b" % (
        limited, group))
    [kill] = kills_in([why, KILLED])
    assert (kill.group, kill.limit_cgroup) == told


def test_a_group_may_be_called_like_what_follows_it() -> None:
    group = b"/a,task=x,pid=7,uid=1"
    [kill] = kills_in([WHY.replace(b"/a/b", group).replace(b"=/a,task_m", b"=/,task_m"), KILLED])
    assert kill.pid == 168 and kill.group == "/a,task=x,pid=7,uid=1"


def test_what_is_cut_off_is_left_out() -> None:
    for end in range(len(KILLED) - len(b", UID:0 pgtables:192kB oom_score_adj:0") - 3):
        assert kills_in([KILLED[:end]]) == []


def test_only_the_kernel_is_believed() -> None:
    # A pipe of packets returns what was written at once, as /dev/kmsg does.
    packets = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    for prefix, record in ((b"6,1,2,-", WHY), (b"3,2,3,-", KILLED), (b"11,3,4,-", KILLED)):
        os.write(packets[1], prefix + b";" + record + b"\n SUBSYSTEM=x\n")
    assert read_kills(packets[0], {}) == [FOUND]
    assert read_kills(packets[0], {}) == []
    for fd in packets:
        os.close(fd)
