"""The armed recorder, with real limits, pressure and kills, in cgroups of either version."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.history.kept import ENDING
from pagewalk.history.trigger import DOCUMENT, Trigger
from pagewalk.proc.cgroups import find_hierarchy
from pagewalk.proc.pressure import MACHINE, waited, watch_pressure
from pagewalk.snapshot.read import Recording
from pagewalk.sources.recorded import document
from tests.live.charged import MIB, Group, Running, charging, group
from tests.live.command import PAGEWALK, Ran, begin, checked, one_sentence, pagewalk
from tests.live.test_group_bad_luck import ODD, safe
from tests.live.test_record_ends import being_written
from tests.machine import fewer, remove_group

pytestmark = pytest.mark.live
OWN = f"pagewalk-armed-{os.getpid()}"
OLD = find_hierarchy().version == 1
needs_version_1 = pytest.mark.skipif(not OLD, reason="only cgroup v1 has it")
needs_version_2 = pytest.mark.skipif(OLD, reason="only cgroup v2 has it")
LIMIT = "memory.limit_in_bytes" if OLD else "memory.max"
PATIENCE = 240.0  # seconds: for what hangs
# Version 2 reports no amount: it is looked at more often than by default.
LOOK = () if OLD else ("--look", "0.1")
OPTIONS = (*LOOK, "--at-most", "0")


class Recorder:
    """A recorder that is armed: ``said`` are the lines that it wrote so far, of both kinds."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.said: list[str] = []
        self.ended = False  # a stream is at its end
        self._more = threading.Condition()
        self._reading = [threading.Thread(target=self._read, args=(stream,))
                         for stream in (process.stdout, process.stderr)]
        for thread in self._reading:
            thread.start()

    def _read(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._more:
                self.said.append(line.decode(errors="surrogateescape").rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self.ended = True
            self._more.notify_all()

    def wait_for(self, text: str, after: int = 0) -> str:
        """Return the first line behind the first ``after`` that contains a text."""
        def found() -> str | None:
            return next((line for line in self.said[after:] if text in line), None)

        with self._more:
            self._more.wait_for(lambda: found() or self.ended, PATIENCE)
            line = found()
        assert line is not None, "\n".join(self.said)
        return line

    def recorded(self, reason: str, after: int = 0) -> Path:
        """Return the recording that is made for a reason, once it is."""
        line = self.wait_for(f"Z {reason}: ", after)
        [name] = [word for word in line.split() if word.endswith(ENDING)]
        return self.folder / name

    def end(self, number: int = signal.SIGTERM) -> Ran:
        """End it, and return what it said."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        for thread in self._reading:
            thread.join()
        return checked(code, b"", "\n".join(self.said).encode(errors="surrogateescape"))


@contextmanager
def armed(where: Group, folder: Path, *options: object) -> Iterator[Recorder]:
    """Arm a recorder of a group, and wait until it is."""
    with begin("record", "--armed", where.path, "-o", folder, *options) as process:
        recorder = Recorder(process, folder)
        try:
            recorder.wait_for("pagewalk: armed: ")
            yield recorder
        finally:
            if process.poll() is None:
                recorder.end()


def limit(where: Group, size: int, *, swap: bool = False) -> None:
    """Limit a group, without swap."""
    (where.directory / LIMIT).write_text(str(size))
    if not OLD and not swap:
        (where.directory / "memory.swap.max").write_text("0")


def trigger_of(path: Path) -> Trigger:
    """Return what a recording says of why it was made."""
    recording = Recording(str(path))
    try:
        found: Trigger = document(recording, None, DOCUMENT, Trigger)
    finally:
        recording.close()
    return found


def counted_in(path: Path) -> list[tuple[object, ...]]:
    """Return what a recording has of cgroups for SQL: path, charge, limit, anonymous memory."""
    recording = Recording(str(path))
    try:
        return [row for part in recording.parts("group", ("cgroup", "size", "allowed", "anon"))
                for row in zip(part.texts("cgroup"), part.needed("size").tolist(),
                               part.needed("allowed").tolist(), part.needed("anon").tolist(),
                               strict=True)]
    finally:
        recording.close()


def anon_of(path: Path, pid: int) -> int:
    """Return the anonymous memory that a process has in a recording."""
    ran = pagewalk("show", f"{path}:{pid}", "--format", "json")
    assert ran.code in (0, 3), ran.err
    return int(ran.json["totals"]["anon"])


def files(folder: Path) -> list[str]:
    """Return all that is in a folder, by time."""
    return sorted(os.listdir(folder))


@contextmanager
def growing(where: Group, mib: int, step: int = 1) -> Iterator[Running]:
    """Run a program in a group that grows step by step."""
    with charging(where, "grows", mib * MIB, step * MIB) as running:
        yield running


# ---- what is noticed


@pytest.mark.vmshort
def test_nearness_and_a_kill_are_recorded(tmp_path: Path) -> None:
    with group(OWN) as where:
        limit(where, 64 * MIB)
        with growing(where, 32) as running, armed(where, tmp_path, *OPTIONS) as recorder:
            while running.facts["bytes"] < 58 * MIB:
                running.step()
            near = recorder.recorded("near")
            assert running.die() == signal.SIGKILL
            kill = recorder.recorded("kill")
            ran_said = recorder.wait_for("Z kill: ")
            ran = recorder.end()
    assert ran.code == 0 and not ran.err.count("cannot record")
    assert files(tmp_path)[0].endswith(f"Z-armed-{near.name.partition('Z-near-')[2]}")
    found = trigger_of(near)
    assert found.now.numbers.current is not None and found.now.numbers.limit == 64 * MIB
    assert 0.9 * 64 * MIB <= found.now.numbers.current <= 64 * MIB
    [member] = found.now.members
    assert member.pid == running.pid and member.anon >= 32 * MIB
    assert anon_of(near, running.pid) >= 57 * MIB
    found = trigger_of(kill)
    assert found.events["oom_kill"] == 1
    assert found.before is not None and running.pid in [one.pid for one in found.before.members]
    # the kernel's log is there, and we are root
    assert found.kills is not None
    [killed] = found.kills
    assert killed.pid == running.pid and killed.of_limit and killed.anon >= 56 * MIB
    ran = pagewalk("explain", kill)
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert f"{where.path}: killed for lack of memory, 20" in said
    assert f"The kernel killed {killed.name} ({running.pid})" in said
    assert "Most of it was anonymous memory" in said and f" {killed.name} killed " in said
    assert "No page of a process is in this recording" in said and "; no process in " in ran_said
    told = pagewalk("explain", kill, "--format", "json").json
    assert told["killed"][0]["pid"] == running.pid and told["before"]["charged"] >= 56 * MIB
    assert pagewalk("explain", f"{near}:{running.pid}", "--no-smaps").code in (0, 3)
    now = trigger_of(near).now.numbers
    assert now.stat is not None
    assert counted_in(near) == [(where.path, now.current, now.limit,
                                 now.stat["total_rss" if OLD else "anon"])]


def test_kills_by_the_limit_of_a_group_above_are_recorded_each_with_what_was_there(
    tmp_path: Path,
) -> None:
    """The second comes within --at-most of the first, and the recorder is ended before that."""
    killed = []
    with group(OWN) as above, group("inside", above) as where:
        limit(above, 64 * MIB)
        with armed(where, tmp_path, "--at-most", "1h", *LOOK) as recorder:
            recorder.wait_for(f"not watched: the limit of {above.path} above (65536 KiB)")
            for _ in range(2):
                with growing(where, 32) as running:
                    while running.facts["bytes"] < 56 * MIB:
                        running.step()
                    assert running.die() == signal.SIGKILL
                    killed.append(running.pid)
                if len(killed) == 1:
                    recorder.recorded("kill")
            recorder.wait_for("kill: another within 3600 s: recorded after that")
            recorder.end()
    kills = sorted(tmp_path.glob("*-kill-*"))
    assert len(kills) == len(killed) == 2
    for path, pid in zip(kills, killed, strict=True):
        found = trigger_of(path)
        assert found.kills is not None
        [kill] = found.kills
        assert (kill.pid, kill.group, kill.limit_cgroup) == (pid, where.path, above.path)
        assert f"cgroup {above.path} could not keep its limit" in " ".join(
            pagewalk("explain", path).out.split())


def test_a_group_near_its_limit_may_have_no_process(tmp_path: Path) -> None:
    """What it has in a tmpfs stays charged to it."""
    out, disk = tmp_path / "out", tmp_path / "tmpfs"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    try:
        with group(OWN) as where:
            limit(where, 512 * MIB)
            with armed(where, out, *OPTIONS) as recorder:
                fill = f"echo $$ > {where.procs} && head -c {30 * MIB} /dev/zero > {disk / 'file'}"
                subprocess.run(["sh", "-c", fill], check=True)
                limit(where, 32 * MIB)  # the processes that filled it have ended
                assert "; no process in " in recorder.wait_for("Z near: ")
            [near] = out.glob("*-near-*")
            first = max(out.glob("*-armed-*"))
    finally:
        subprocess.run(["umount", disk], check=True)
    said = " ".join(pagewalk("explain", near).out.split())
    assert "Most of it was tmpfs and shared memory" in said
    assert "No page of a process is in this recording" in said
    for words in (("show", near), ("maps", near), ("top", near, "--once"), ("share", near),
                  ("diff", near, "--live"), ("diff", near, os.getpid())):
        ran = pagewalk(*words)
        assert ran.code == 2 and f"{near} has no process: when the armed" in one_sentence(ran)
    ran = pagewalk("diff", first, near)
    assert ran.code == 0 and ran.out.startswith("Nothing changed")
    for path in (first, near):
        assert f"{path} has no process: what its cgroup was charged for says" in ran.err


def test_the_shared_memory_that_fills_a_group_is_named(tmp_path: Path) -> None:
    with (group(OWN) as where, charging(where, "memfd", "blobs", 40 * MIB) as running,
          armed(where, tmp_path, *OPTIONS) as recorder):
        recorder.wait_for("has no limit")
        limit(where, 44 * MIB)
        near = recorder.recorded("near")
    told = pagewalk("explain", near, "--format", "json").json["shared_files"]
    assert told == [{"name": "/memfd:blobs (deleted)", "pid": running.pid,
                     "process": told[0]["process"], "rss": 40 * MIB}]
    said = " ".join(pagewalk("explain", near, "--human").out.split())
    assert f"({running.pid}) had 40M of /memfd:blobs (deleted) in its RSS" in said
    sql = "select cgroup, allowed, shmem >= 40 << 20 as shared, removed from cgroups"
    assert pagewalk("query", near, sql, "--format", "json").json["rows"] == [
        {"cgroup": where.path, "allowed": 44 * MIB, "shared": True, "removed": 0}]


def test_processes_that_cannot_be_recorded_are_told_from_none(tmp_path: Path) -> None:
    # Without CAP_SYS_PTRACE the processes of others cannot be read, but the group's numbers can.
    less = ("setpriv", "--bounding-set", "-all,+dac_override,+dac_read_search,+syslog",
            "--inh-caps", "-all")
    with group(OWN) as where:
        limit(where, 64 * MIB)
        words = [*less, *PAGEWALK, "record", "--armed", where.path, "-o", str(tmp_path), *OPTIONS,
                 "--source", "procfs"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            recorder = Recorder(process, tmp_path)
            recorder.wait_for("pagewalk: armed: ")
            with growing(where, 32) as running:
                while running.facts["bytes"] < 60 * MIB:
                    running.step()
                line = recorder.wait_for("could not be recorded; ")
            recorder.end()
    assert f"process {running.pid}: cannot read " in line and "; no process in " in line
    [first, near] = [max(tmp_path.glob(f"*-{reason}-*")) for reason in ("armed", "near")]
    ran = pagewalk("explain", near)
    assert ran.code == 3 and "the processes of the cgroup could not be recorded" in " ".join(
        ran.out.split())
    ran = pagewalk("show", near)
    assert ran.code == 2 and "or none that it could read" in one_sentence(ran)
    ran = pagewalk("diff", first, near)
    assert ran.code == 3 and f"1 could not be recorded; process {running.pid}: " in " ".join(
        ran.err.split() + ran.out.split())


def test_page_cache_is_not_near(tmp_path: Path, disk: Path) -> None:
    with group(OWN) as where:
        limit(where, 32 * MIB)
        fill = f"echo $$ > {where.procs} && head -c {36 * MIB} /dev/zero > {disk / 'file'}"
        with (armed(where, tmp_path / "out", *OPTIONS) as recorder,
              growing(where, 1) as running):
            subprocess.run(["sh", "-c", fill], check=True)
            filled = time.time_ns()
            said = list(recorder.said)
            while running.facts["bytes"] < 30 * MIB:
                running.step()
            found = trigger_of(recorder.recorded("near"))
    assert not [line for line in said if "Z near: " in line]
    assert found.now.at_ns > filled
    stat = found.now.numbers.stat
    assert stat is not None  # the page cache had filled the group up to its limit
    assert stat["active_file"] + stat["inactive_file"] > 0


def test_a_limit_that_is_lowered_is_near_at_once(tmp_path: Path) -> None:
    with (group(OWN) as where, growing(where, 48) as running,
          armed(where, tmp_path, "--at-most", "0", "--look", "0") as recorder):
        recorder.wait_for("has no limit")
        limit(where, 512 * MIB)
        limit(where, 52 * MIB)
        found = trigger_of(recorder.recorded("near"))
    assert [one.pid for one in found.now.members] == [running.pid]
    assert found.now.numbers.limit == 52 * MIB and "limit" in found.told


@needs_version_1
def test_reclaim_that_finds_nothing_is_pressure(tmp_path: Path) -> None:
    with group(OWN) as where, growing(where, 20):
        limit(where, 64 * MIB)
        with armed(where, tmp_path, *OPTIONS) as recorder:
            with pytest.raises(OSError, match="busy"):
                limit(where, 8 * MIB)
            found = trigger_of(recorder.recorded("pressure"))
    assert "critical" in found.told and found.now.numbers.limit == 64 * MIB


@needs_version_1
def test_pressure_that_is_too_short_is_none_whatever_is_reported(
    tmp_path: Path, disk: Path
) -> None:
    """The kernel reports it to a trigger of ours, set as the recorder's is: see waiting.stalled."""
    def wait_a_little() -> None:
        # It reclaims its own page cache.
        fill = f"echo $$ > {busy.procs} && head -c {40 * MIB} /dev/zero > {disk / 'file'}"
        subprocess.run(["sh", "-c", fill], check=True)

    with group(OWN) as where, group(f"{OWN}-busy") as busy:
        limit(busy, 16 * MIB)
        wait_a_little()
        with armed(where, tmp_path, *OPTIONS) as recorder:
            fd, window = watch_pressure(0.1, MACHINE)
            before = waited(fd)
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            wait_a_little()
            poll.poll(2 * window / 1000)
            said = len(recorder.said)
            limit(where, -1)
            recorder.wait_for("has no limit", said)  # it has read what was reported before
            long = waited(fd) - before >= 0.1 * window
            os.close(fd)
    told = {one for path in tmp_path.glob("*-pressure-*") for one in trigger_of(path).told}
    assert "machine pressure" not in told or long


@needs_version_2
def test_tasks_that_wait_for_memory_are_pressure(tmp_path: Path) -> None:
    # The limit that slows them down is of the group above: this one is never near its own.
    with group(OWN) as above, group("in", above) as where:
        (above.directory / "memory.high").write_text(str(24 * MIB))
        with growing(where, 8, 2) as running, armed(where, tmp_path, *OPTIONS) as recorder:
            while not any("Z pressure: " in line for line in recorder.said):
                running.step()
            found = trigger_of(recorder.recorded("pressure"))
    assert "pressure" in found.told and found.now.numbers.limit is None
    assert found.now.numbers.pressure is not None and found.now.numbers.pressure["some"] > 0


@pytest.mark.vmshort
@needs_version_2
def test_memory_high_gives_time(tmp_path: Path) -> None:
    with group(OWN) as where:
        (where.directory / "memory.high").write_text(str(32 * MIB))
        with growing(where, 8, 4) as running, armed(
                where, tmp_path, "--look", "0", "--at-most", "0", "--keep", "1000") as recorder:
            while not any("Z near: " in line for line in recorder.said):
                running.step()
            found = trigger_of(recorder.recorded("near"))
            assert running.step()  # it is slowed down, and alive
    assert found.events.get("high") and "event" in found.told


# ---- held


@needs_version_1
def test_a_process_is_held_until_it_is_recorded(tmp_path: Path) -> None:
    with group(OWN) as where:
        limit(where, 64 * MIB)
        control = where.directory / "memory.oom_control"
        with growing(where, 40) as running, armed(where, tmp_path, *OPTIONS, "--hold") as recorder:
            assert "oom_kill_disable 1" in control.read_text()
            recorder.wait_for("memory.oom_control is 1 while this runs")
            assert running.die() == signal.SIGKILL
            held, kill = recorder.recorded("held"), recorder.recorded("kill")
            with growing(where, 40) as again:  # it is armed again
                assert again.die() == signal.SIGKILL
                recorder.recorded("held", after=recorder.said.index(recorder.wait_for("Z kill")))
            ran = recorder.end()
            assert "oom_kill_disable 0" in control.read_text()
    assert ran.code == 0
    found = trigger_of(held)
    assert not found.events.get("oom_kill")
    assert [one.pid for one in found.now.members] == [running.pid]
    # all of it was there while it was looked at
    assert anon_of(held, running.pid) >= 57 * MIB
    assert trigger_of(kill).events["oom_kill"] == 1


@needs_version_1
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_recorder_ends_nothing_is_held_any_more(tmp_path: Path, number: int) -> None:
    with group(OWN) as where, armed(where, tmp_path, "--hold") as recorder:
        control = where.directory / "memory.oom_control"
        assert "oom_kill_disable 1" in control.read_text()
        ran = recorder.end(number)
        until = time.monotonic() + PATIENCE
        while "oom_kill_disable 1" in control.read_text():
            assert time.monotonic() < until
    assert ran.code == {signal.SIGTERM: 0, signal.SIGINT: 130, signal.SIGKILL: -9}[number]


@needs_version_1
def test_what_others_hold_is_left_to_them(tmp_path: Path) -> None:
    with group(OWN) as where:
        control = where.directory / "memory.oom_control"
        control.write_text("1")
        with armed(where, tmp_path, "--hold") as recorder:
            recorder.wait_for("is 1 already")
        assert "oom_kill_disable 1" in control.read_text()


@needs_version_2
def test_version_2_cannot_hold(tmp_path: Path) -> None:
    with group(OWN) as where:
        ran = pagewalk("record", "--armed", where.path, "-o", tmp_path, "--hold")
    assert ran.code == 2 and "--hold needs cgroup v1" in one_sentence(ran)


# ---- bad luck


def test_a_group_that_is_removed_ends_it(tmp_path: Path) -> None:
    with group(OWN) as where, armed(where, tmp_path) as recorder:
        remove_group(where.directory)
        assert recorder.process.wait(PATIENCE) == 5
        recorder.wait_for(f"cgroup {where.path} does not exist, or was removed meanwhile")
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("without", ["", "syslog"])
def test_of_a_group_that_is_removed_with_what_was_killed_the_log_tells(
    tmp_path: Path, without: str
) -> None:
    # Whoever runs a service removes its group as soon as it has ended: faster than any reader.
    before = ("setpriv", f"--bounding-set=-{without}") if without else ()
    with group(OWN) as where:
        limit(where, 32 * MIB)
        words = [*before, *PAGEWALK, "record", "--armed", where.path, "-o", str(tmp_path)]
        with (growing(where, 16) as running,
              subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process):
            recorder = Recorder(process, tmp_path)
            recorder.wait_for("pagewalk: armed: ")
            process.send_signal(signal.SIGSTOP)
            try:
                assert running.die() == signal.SIGKILL
                remove_group(where.directory)
            finally:
                process.send_signal(signal.SIGCONT)
            assert process.wait(PATIENCE) == 5
            if without and not OLD:  # which reports an event, but of what is gone with the group
                recorder.wait_for("not noticed: who is killed: the kernel's log cannot be read")
                return
            file = recorder.recorded("full" if without else "kill")
    found = trigger_of(file)
    assert found.told == ("removed",) and found.now.processes == 0
    assert found.before is not None
    assert [one.pid for one in found.before.members] == [running.pid]
    ran = pagewalk("explain", file)
    if without:
        assert found.kills is None
        assert "partial: whether anybody was killed, and who: the kernel's log" in ran.out
    else:
        [killed] = found.kills or ()
        assert killed.pid == running.pid and killed.of_limit
        assert f"({running.pid})" in ran.out and "s before this was noticed" in ran.out
    told = pagewalk("explain", file, "--format", "json").json
    assert told["now"]["charged"] is None and told["now"]["swap"] is None
    assert told["gone"] == [running.pid]


def test_whatever_it_is_writing_when_it_is_ended_is_not_there(tmp_path: Path) -> None:
    with group(OWN) as where, charging(where, "anon", 128 * MIB):
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            words = [*PAGEWALK, "record", "--armed", where.path, "-o", str(folder)]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                while process.poll() is None and not (
                        files(folder) or being_written(process.pid, folder)):
                    pass
                writing = being_written(process.pid, folder)
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(None, PATIENCE)
            assert process.returncode == 0, err
            assert checked(process.returncode, out, err)
            left = files(folder)
            for name in left:
                assert trigger_of(folder / name).reason == "armed"
            if writing and not left:
                return
    raise AssertionError("it was never ended while it was writing")


def test_without_rights_it_says_what_to_do(tmp_path: Path) -> None:
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    with tempfile.TemporaryDirectory() as folder, group(OWN) as where, charging(
            where, "anon", MIB):
        os.chmod(folder, 0o777)
        ran = pagewalk("record", "--armed", where.path, "-o", folder, before=nobody)
        assert files(Path(folder)) == []
    assert ran.code == 6
    assert "run as root" in ran.err.splitlines()[-1]


def test_no_such_group(tmp_path: Path) -> None:
    ran = pagewalk("record", "--armed", "/no-such-group", "-o", tmp_path)
    assert ran.code == 2 and "no memory cgroup is called '/no-such-group'" in one_sentence(ran)


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with group(OWN) as where:
        ran = pagewalk("record", "--armed", where.path, "-o", tmp_path / "file")
        assert ran.code == 2 and "is no folder" in one_sentence(ran)
        ran = pagewalk("record", "--armed", where.path, "-o", "/proc/none")
        assert ran.code == 1 and "/proc/none" in one_sentence(ran)


@pytest.mark.parametrize("name", ODD[: fewer(len(ODD))][::4])
def test_odd_names_do_no_harm(name: str, tmp_path: Path) -> None:
    with group(f"{OWN}{name}") as where, armed(where, tmp_path) as recorder:
        ran = recorder.end()
    safe(ran)
    [file] = files(tmp_path)
    assert file.isascii() and file.isprintable()
    assert trigger_of(tmp_path / file).path == where.path


def test_a_recorder_in_the_group_is_warned(tmp_path: Path) -> None:
    with group(OWN) as where:
        words = f"echo 0 > {where.procs} && exec {' '.join(PAGEWALK)} record --armed {where.path}"
        with subprocess.Popen(["sh", "-c", f"{words} -o {tmp_path}"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            recorder = Recorder(process, tmp_path)
            recorder.wait_for("this recorder is in cgroup")
            recorder.wait_for("pagewalk: armed: ")
            recorder.end()


def test_only_so_many_are_made_and_kept(tmp_path: Path) -> None:
    with group(OWN) as where, growing(where, 48):
        options = ("--look", "0", "--keep", "2")
        with armed(where, tmp_path, *options, "--at-most", "0") as recorder:
            for size in (51, 52, 51, 52):
                before = len(recorder.said)
                limit(where, 512 * MIB)
                limit(where, size * MIB)
                recorder.recorded("near", before)
        assert len([name for name in files(tmp_path) if "Z-near-" in name]) == 2
        limit(where, 512 * MIB)
        with armed(where, tmp_path / "rarely", *options) as recorder:
            for size in (51, 52):
                limit(where, 512 * MIB)
                limit(where, size * MIB)
            recorder.recorded("near")
            recorder.end()
    assert len([name for name in files(tmp_path / "rarely") if "Z-near-" in name]) == 1
