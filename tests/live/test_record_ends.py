"""However a recording ends, every file is whole: the one from before, or the new one."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.snapshot.read import Recording
from pagewalk.sources.recorded_target import processes_of
from tests.live.command import PAGEWALK, begin, end, one_sentence, pagewalk, pagewalk_here, run
from tests.targets import Running, start

pytestmark = pytest.mark.live

PARTIAL = re.compile(r"\.pagewalk\.[0-9a-f]{12}\.partial")
MOMENTS = 50
# Forks, so that Python starts once: prints the child's pid, and its end after a line.
FORKS = """
import os, sys
from pagewalk.cli import main
import pagewalk.history.record, pyarrow.parquet
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os._exit(main(sys.argv[1:]))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


@contextmanager
def forks(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FORKS, *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, bufsize=1) as made:
        yield made
        assert made.stdin is not None
        made.stdin.close()


def whole(path: Path, pid: int) -> bool:
    recording = Recording(str(path))
    try:
        return [one.pid for one in processes_of(recording)] == [pid]
    finally:
        recording.close()


def being_written(pid: int, folder: Path) -> bool:
    """Return whether a process has a file in ``folder`` that has no name, or is a partial one."""
    try:
        places = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:  # it has ended, or closed one meanwhile
        return False
    return any(place.startswith(f"{folder}/") and place.endswith((" (deleted)", ".partial"))
               for place in places)


def once(made: subprocess.Popen[str], after: float | None, folder: Path) -> bool:
    """Let one recording begin, and kill it ``after`` so many seconds unless it has ended.

    Return whether a file in ``folder`` was being written then.
    """
    writing = False
    assert made.stdin is not None and made.stdout is not None
    made.stdin.write("go\n")
    pid = int(made.stdout.readline())
    if after is not None and not select.select([made.stdout], [], [], after)[0]:
        os.kill(pid, signal.SIGSTOP)  # its parent has not waited for it: the pid is its own
        writing = being_written(pid, folder)
        os.kill(pid, signal.SIGKILL)
    assert made.stdout.readline() == "ended\n"
    return writing


def test_killed_at_any_moment_every_file_is_whole(tmp_path: Path) -> None:
    path, rng, cut = tmp_path / "a", random.Random(15), 0
    with start("dense", 64, stopped=True) as running, forks(
            "record", running.pid, "-q", "-o", path) as made:
        once(made, None, tmp_path)
        assert os.listdir(tmp_path) == ["a"] and whole(path, running.pid)
        path.unlink()
        for _ in range(MOMENTS):
            cut += once(made, rng.uniform(0, 0.25), tmp_path)
            for name in os.listdir(tmp_path):
                assert whole(tmp_path / name, running.pid)
                if name != "a":  # killed between its two names
                    assert PARTIAL.fullmatch(name)
                    os.unlink(tmp_path / name)
            if rng.random() < 0.5:
                path.unlink(missing_ok=True)
    assert cut  # else no moment was one at which a file was being written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(number: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with start("dense", 1024, stopped=True) as running:
        process = begin("record", running.pid, "-o", path)
        while process.poll() is None and not being_written(process.pid, tmp_path):
            select.select([], [], [], 0.001)
        process.send_signal(signal.SIGSTOP)  # so that it is in the middle when the signal comes
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert being_written(process.pid, tmp_path)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        ran = end(process)
    assert ran.code == 128 + number
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"before"


def in_mount(options: str, running: Running, folder: Path, old: Path) -> tuple[str, bytes]:
    """Record over a copy of ``old`` in a tmpfs of its own.

    Return what is said, with the exit code and the names that are there, and the file's bytes.
    """
    script = (f'mount -t tmpfs -o {options} none "$1" && cp "$2" "$1/a" && shift 2 && "$@"'
              '; echo "code $?" >&2; cat "$0/a"; ls -A "$0" >&2')
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(folder), str(folder), str(old), *PAGEWALK,
         "record", str(running.pid), "-o", str(folder / "a")], check=True, capture_output=True)
    return ran.stderr.decode(), ran.stdout


def test_on_a_full_disk_the_file_from_before_stays(tmp_path: Path) -> None:
    old, folder = tmp_path / "old", tmp_path / "small"
    folder.mkdir()
    with start("plain", stopped=True) as running:
        assert pagewalk_here("record", running.pid, "-o", old).code == 0
        size = (old.stat().st_size + 8191) // 4096 * 4096
        said, kept = in_mount(f"size={size}", running, folder, old)
    assert kept == old.read_bytes()
    assert said.splitlines()[1:] == ["code 1", "a"]
    assert "No space left on device" in said and f"{folder}/a" in said


@pytest.mark.parametrize(("place", "code", "why"), [
    ("-", 2, "written as a whole, into a file: name one with -o FILE"),
    ("/dev/null", 2, "into /dev/null: it is no regular file"),
    ("fifo", 2, "into fifo: it is no regular file"),
    ("folder", 2, "into folder: it is a directory"),
    ("missing/a", 1, "missing/a: No such file or directory"),
])
def test_what_is_no_place_for_a_file_is_refused(
    place: str, code: int, why: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with start("plain", stopped=True) as running:
        ran = run(*PAGEWALK, "record", running.pid, "-o", place, cwd=tmp_path)
    assert ran.code == code and why in one_sentence(ran)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "link"
    precious.write_text("precious")
    link.symlink_to(precious)
    with start("plain", stopped=True) as running:
        assert pagewalk_here("record", running.pid, "-o", link).code == 0
    assert precious.read_text() == "precious" and not link.is_symlink()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    """Root may write anywhere but on a file system that is mounted read-only."""
    folder = tmp_path / "ro"
    folder.mkdir()
    mounted = 'mount -t tmpfs -o ro none "$1" && shift && exec "$@"'
    ran = pagewalk("record", os.getpid(), "-o", folder / "a.pagewalk",
                   before=("unshare", "--mount", "sh", "-c", mounted, "sh", folder))
    assert ran.code == 1 and "ead-only file system" in one_sentence(ran)
    assert str(folder / "a.pagewalk") in ran.err and not list(folder.iterdir())
