"""Which process a TARGET means, in a /proc of plain files and in the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.model.errors import BadTarget
from pagewalk.proc.command_lines import WORDS
from pagewalk.proc.processes import LONGEST, Process, find, read_processes

STAT = b"%d (%s) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 %d 3 0\n"


def pretend(root: Path, pid: int, comm: bytes, cmdline: bytes, vsize: int = 8192) -> None:
    base = root / str(pid)
    base.mkdir()
    (base / "stat").write_bytes(STAT % (pid, comm, vsize))
    (base / "statm").write_bytes(b"9 3 1 1 0 1 0\n")
    (base / "cmdline").write_bytes(cmdline)


def test_a_process_is_a_number_with_an_address_space(tmp_path: Path) -> None:
    pretend(tmp_path, 7, b"a) (b", b"/bin/a b\0-x\0")
    pretend(tmp_path, 8, b"kthreadd", b"", vsize=0)
    (tmp_path / "9").mkdir()  # ended after the listing
    (tmp_path / "self").mkdir()
    uid = os.getuid()
    assert list(read_processes(str(tmp_path))) == [Process(
        7, "a) (b", "/bin/a b", uid, 3 * 4096, command="/bin/a b -x")]


def test_of_a_long_command_line_the_beginning_is_kept(tmp_path: Path) -> None:
    pretend(tmp_path, 7, b"a", b"/bin/a\0" + b"xy\0" * 1000)
    pretend(tmp_path, 8, b"b", b"y" * 5000)
    pretend(tmp_path, 9, b"c", b"")
    said = {process.pid: process.command for process in read_processes(str(tmp_path))}
    assert said == {7: "/bin/a" + " xy" * (WORDS - 1), 8: "y" * LONGEST, 9: ""}


def test_our_own_process_is_listed_with_its_rss() -> None:
    mine = next(p for p in read_processes() if p.pid == os.getpid())
    assert mine.name == Path("/proc/self/comm").read_text().rstrip("\n")
    assert mine.rss > 1 << 20


@pytest.mark.parametrize(
    ("text", "pid"), [("1", 1), ("+12", 12), ("0042", 42), ("2147483647", 2**31 - 1)]
)
def test_a_number_is_a_pid(text: str, pid: int) -> None:
    assert find(text) == pid


@pytest.mark.parametrize("text", ["0", "-1", "2147483648", "99999999999999999999"])
def test_a_number_that_no_process_can_have_is_refused(text: str) -> None:
    with pytest.raises(BadTarget, match="is not a valid pid"):
        find(text)


@pytest.mark.parametrize("text", ["", " ", "+-5", "²", "1" * 5000, "no such name"])
def test_anything_but_a_number_is_a_name(text: str) -> None:
    with pytest.raises(BadTarget, match="no process is called"):
        find(text)


@pytest.fixture
def listed(tmp_path: Path) -> str:
    """Return a /proc with six processes."""
    pretend(tmp_path, 10, b"java", b"/usr/bin/java\0-jar\0")
    pretend(tmp_path, 11, b"python3", b"/opt/tool\0")
    pretend(tmp_path, 12, b"sshd", b"sshd: alice\0")
    pretend(tmp_path, 13, b"sshd", b"/usr/sbin/sshd\0")
    pretend(tmp_path, 14, b"a b", b"")
    pretend(tmp_path, 15, b"python3", b"/usr/bin/python3\0-u\0/srv/svc.py\0--port\0")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "pid"),
    [("java", 10), ("/usr/bin/java", 10), ("tool", 11), ("/opt/tool", 11), ("sshd: alice", 12),
     ("a b", 14), ("svc.py", 15), ("/srv/svc.py", 15), ("jav*", 10), ("*/sbin/sshd", 13),
     ("s?c.py", 15)],
)
def test_a_name_is_comm_or_a_word_of_the_command_line_or_a_pattern(
    listed: str, name: str, pid: int
) -> None:
    assert find(name, listed) == pid


def test_a_program_comes_before_a_script_of_that_name(tmp_path: Path) -> None:
    pretend(tmp_path, 20, b"redis-server", b"redis-server\0*:6379\0")
    pretend(tmp_path, 21, b"strace", b"strace\0-f\0redis-server\0")
    assert find("redis-server", str(tmp_path)) == 20


def test_a_path_may_be_that_of_the_program_or_a_link_to_it(tmp_path: Path) -> None:
    real, link = tmp_path / "jdk-17", tmp_path / "java"
    real.write_bytes(b"")
    link.symlink_to(real)
    for pid, program in ((20, f"{real} (deleted)"), (21, str(tmp_path / "other"))):
        pretend(tmp_path, pid, b"main", b"server\0")
        (tmp_path / str(pid) / "exe").symlink_to(program)
    pretend(tmp_path, 22, b"kthread", b"", 0)  # it has no exe
    assert [find(str(path), str(tmp_path)) for path in (real, link)] == [20, 20]


@pytest.mark.parametrize("name", ["-u", "--port", "srv", "svc", "nothing*", "?"])
def test_options_and_parts_of_words_are_no_names(listed: str, name: str) -> None:
    with pytest.raises(BadTarget, match="no process is called"):
        find(name, listed)


@pytest.mark.parametrize("folder", ["", "/"])
def test_a_file_that_is_no_recording_is_named(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"data")
    (tmp_path / "folder").mkdir()
    at = folder and f"{tmp_path}/"
    with pytest.raises(BadTarget) as raised:
        find(f"{at}data.bin")
    assert str(raised.value).startswith(
        f"no process is called '{at}data.bin', and the file of that name is no recording; give")
    with pytest.raises(BadTarget) as raised:
        find(f"{at}folder")
    assert "the folder of that name is no recording (name one in it)" in str(raised.value)
    for name in ("none", "a\0b"):
        with pytest.raises(BadTarget) as raised:
            find(f"{at}{name}")
        assert "recording" not in str(raised.value)


def test_candidates_of_an_ambiguous_name_are_listed(listed: str) -> None:
    with pytest.raises(BadTarget, match="2 processes are called 'sshd'; give one pid") as caught:
        find("sshd", listed)
    assert caught.value.candidates == ((12, "sshd: alice"), (13, "/usr/sbin/sshd"))
    assert "12  sshd: alice" in str(caught.value)


@pytest.mark.parametrize(("line", "script"), [
    ("python3 -u /srv/svc.py --port 1", "/srv/svc.py"),
    ("python3.11 -W ignore -m http.server", "http.server"),
    ("java -Xmx1g -cp /srv:/opt/lib.jar shop.Orders -v", "shop.Orders"),
    ("/usr/bin/java -jar shop.jar", "shop.jar"), ("python3", ""), ("python3 -c print(1)", ""),
    ("python3 -Ic pass", ""), ("perl -ne print", ""), ("bash -lc true x", ""),
    ("mysql -u root accounts", ""), ("bash /dev/fd/3", ""), ("python3 /proc/self/fd/63 x", ""),
])
def test_an_interpreter_is_told_by_what_it_runs(tmp_path: Path, line: str, script: str) -> None:
    pretend(tmp_path, 7, b"x", line.replace(" ", "\0").encode() + b"\0")
    assert [p.script for p in read_processes(str(tmp_path))] == [script]
    assert not script or find(script.rpartition("/")[2], str(tmp_path)) == 7


def test_candidates_are_told_apart_by_their_scripts(listed: str) -> None:
    with pytest.raises(BadTarget) as caught:
        find("python*", listed)
    assert caught.value.candidates == ((11, "/opt/tool"), (15, "/usr/bin/python3 /srv/svc.py"))


def test_pagewalk_itself_is_never_the_process_meant(tmp_path: Path) -> None:
    # `pagewalk python3` runs in a python3, from a shell or a test runner.
    for pid in (os.getpid(), os.getppid(), 9):
        pretend(tmp_path, pid, b"me", b"")
    assert find("me", str(tmp_path)) == 9


def test_a_kernel_thread_is_found_if_no_process_has_its_name(tmp_path: Path) -> None:
    pretend(tmp_path, 8, b"kthreadd", b"", vsize=0)
    assert find("kthreadd", str(tmp_path)) == 8
    pretend(tmp_path, 9, b"kthreadd", b"kthreadd\0")
    assert find("kthreadd", str(tmp_path)) == 9
    with pytest.raises(BadTarget, match="no process is called ''"):
        find("", str(tmp_path))
