"""What a JVM says of itself when it is asked, against what jcmd prints; and what that disturbs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.bracket import look_again
from tests.live.command import PATIENCE, pagewalk
from tests.machine import IN_GUEST
from tests.targets.catalogue import PARK

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(IN_GUEST, reason="what a JVM answers has nothing to do with the kernel"),
]

COLLECTORS = ("Serial", "Parallel", "G1", "Z", "Shenandoah")


@contextmanager
def java(
    *options: str, before: tuple[str, ...] = (), program: str = PARK
) -> Iterator[int]:
    """Run Park.java until the block ends; yield its number once it waits."""
    with subprocess.Popen([*before, "java", "-Xmx64m", *options, program], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = process.pid
        try:
            assert b"ready" in process.stdout.readline()
            pid = the_jvm(process.pid)
            yield pid
            process.communicate(timeout=PATIENCE)  # at its end the JVM removes its socket
        finally:
            process.kill()
            Path(f"/tmp/.java_pid{pid}").unlink(missing_ok=True)  # it is left by one that is killed


def the_jvm(pid: int) -> int:
    """Return the process of the java that ``pid`` became or started."""
    while Path(f"/proc/{pid}/comm").read_text() != "java\n":
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def asked(pid: int) -> dict[str, Any]:
    found: dict[str, Any] = pagewalk("heap", pid, "--ask", "--format", "json").json["asked"]
    return found


def jcmd(pid: int, *words: str) -> str:
    return subprocess.run(["jcmd", str(pid), *words], check=True, capture_output=True, text=True,
                          timeout=PATIENCE).stdout


def same_as_jcmd(pid: int) -> dict[str, Any]:
    """Return what it says, when jcmd before and after prints these very numbers."""
    commands = (("GC.heap_info",), ("VM.metaspace", "basic", "scale=1"), ("Compiler.codecache",))
    before = [jcmd(pid, *words) for words in commands]
    found = asked(pid)
    assert [jcmd(pid, *words) for words in commands] == before
    heap, metaspace, code = ([int(digits) for digits in re.findall(r"\d+", text)]
                             for text in before)
    for space in found["heap"]:
        shift = 20 if space["name"] == "ZHeap" else 10
        assert {space["used"] >> shift, space["capacity"] >> shift} <= {*heap}
    for space in found["metaspace"]:
        assert {space["used"], space["capacity"]} <= {*metaspace}
    for space in found["code_cache"]:
        assert {space["used"] >> 10, space["capacity"] >> 10} <= {*code}
    return found


@pytest.mark.parametrize("collector", COLLECTORS)
def test_it_is_what_jcmd_prints(collector: str) -> None:
    with java(f"-XX:+Use{collector}GC") as pid:
        found = look_again(lambda: same_as_jcmd(pid))
    assert found["why"] == "" and found["native"] == [] and not found["started"]
    assert 0 < sum(space["capacity"] for space in found["heap"]) <= 64 << 20
    assert [space["name"] for space in found["metaspace"]] == ["metaspace", "class space"]
    assert found["code_cache"]


def test_the_heap_that_it_tracks_is_the_heap() -> None:
    with java("-Xms64m", "-XX:+UseSerialGC", "-XX:NativeMemoryTracking=summary") as pid:
        native = {one["name"]: one for one in asked(pid)["native"]}
    assert native["Java Heap"]["committed"] == native["Java Heap"]["reserved"] == 64 << 20
    assert native["Thread"]["committed"] > 0


def test_what_is_in_ram_of_its_heap_is_explained() -> None:
    with java("-Xms64m", "-XX:+UseSerialGC", "-XX:+AlwaysPreTouch") as pid:
        before = pagewalk("heap", pid, "--format", "json").json
        found = pagewalk("heap", pid, "--ask", "--format", "json").json
    assert found["asked"]["heap_present"] == 64 << 20
    assert 0 < found["asked"]["code_present"] < 64 << 20
    assert found["explained"] > before["explained"] + (64 << 20)
    assert found["explained"] < found["anonymous"]


def test_nothing_is_disturbed_unless_it_is_asked_and_then_that_is_said() -> None:
    with java() as pid:
        socket, mark = (Path(f"/tmp/.{name}_pid{pid}") for name in ("java", "attach"))
        pagewalk("heap", pid)
        assert not socket.exists()
        threads = len(os.listdir(f"/proc/{pid}/task"))
        ran = pagewalk("heap", pid, "--ask")
        assert socket.exists() and not mark.exists()
        assert len(os.listdir(f"/proc/{pid}/task")) > threads
        again = pagewalk("heap", pid, "--ask")
    assert "started its attach listener" in ran.out and "started its attach listener" in ran.err
    assert "listener" not in again.out + again.err


def test_one_of_another_user_in_other_namespaces_is_asked_in_its_own() -> None:
    script = f"""park=$(cat '{PARK}') && mount -t tmpfs none /tmp && chmod 1777 /tmp &&
        echo "$park" > /tmp/Park.java &&
        exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@" """
    before = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh")
    with java(before=before, program="/tmp/Park.java") as pid:
        found = asked(pid)
        inside = int(Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].split()[1])
        socket = Path(f"/proc/{pid}/root/tmp/.java_pid{inside}")
        assert socket.is_socket() and socket.stat().st_uid == 65534
    assert found["why"] == "" and found["heap"] and found["started"]
    assert not Path(f"/tmp/.java_pid{inside}").exists()


@pytest.mark.parametrize(("option", "why"), [
    ("-XX:+DisableAttachMechanism", "DisableAttachMechanism"),
    ("-XX:-UsePerfData", "performance data"),
])
def test_one_that_cannot_be_asked_is_not_disturbed(option: str, why: str) -> None:
    with java(option) as pid:
        ran = pagewalk("heap", pid, "--ask", "--format", "json")
        os.kill(pid, 0)
        assert not Path(f"/tmp/.java_pid{pid}").exists()
    assert ran.code == 3
    assert why in ran.json["asked"]["why"] and ran.json["asked"]["heap"] is None


def test_one_that_does_not_catch_signals_has_its_socket_from_the_start() -> None:
    with java("-Xrs") as pid:
        found = asked(pid)
    assert found["why"] == "" and found["heap"] and not found["started"]


def test_an_ordinary_user_asks_their_own() -> None:
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with java(before=user) as pid:
        found = pagewalk("heap", pid, "--ask", "--format", "json", before=user).json["asked"]
    assert found["why"] == "" and found["heap"]
