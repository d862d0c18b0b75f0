"""pagewalk run on real commands: what it starts, passes on, sees, and returns."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.history.watching import PAGEWALK, PATIENCE, budget, kernel_says, running
from tests.live.bracket import look_again
from tests.render.written import seen

MIB = 1 << 20
# Holds so many MiB, tells its pid, and waits for a line.
HOLD = "import os, sys; held = b'x' * (int(sys.argv[1]) << 20); print(os.getpid(), flush=True);" \
       " sys.stdin.readline()"


def python(code: str, *args: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, args)]


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PAGEWALK, "run", *words], capture_output=True, text=True,
                          timeout=PATIENCE, check=False, **options)  # type: ignore[call-overload]


# ---- what it returns


@pytest.mark.parametrize(("script", "code"), [
    ("exit 0", 0), ("exit 1", 1), ("exit 4", 4), ("exit 255", 255),
    ("kill -KILL $$", 137), ("kill -SEGV $$", 139),
])
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    ran = run("-q", "--", "sh", "-c", f"echo out; echo err >&2; {script}")
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "out\n", "err\n")


@pytest.mark.parametrize(("command", "code", "says"), [
    ("no-such-command", 127, "no such file or directory; give its path, or the name of a program on"
     " PATH"),
    ("", 127, "no such file or directory; give its path, or the name of a program on PATH"),
    ("/etc/passwd", 126, "permission denied; give a program that you may execute"),
    ("/", 126, "permission denied; give a program that you may execute"),
    ("no\n\x1b[31msuch", 127, "no such file or directory; give its path, or the name of a program"
     " on PATH"),
])
def test_a_command_that_cannot_be_started_is_a_sentence(
    command: str, code: int, says: str
) -> None:
    ran = run("--max-uss", "1G", "--", command)
    assert ran.returncode == code and ran.stdout == ""
    assert ran.stderr.startswith("pagewalk: cannot start '") and ran.stderr.endswith(f"{says}\n")
    assert ran.stderr.count("\n") == 1 and "\x1b" not in ran.stderr


def test_a_budget_that_is_exceeded_is_exit_code_4_whatever_the_command_returns() -> None:
    with running(python(f"{HOLD}; sys.exit(3)", 64), "--max-uss", "32M", "--max-rss", "1G") as ran:
        ran.looked_at()
        ran.say()
        returned, report = ran.end()
    assert returned == 4 and report["exit_code"] == 3
    assert budget(report, "uss")["exceeded"] and not budget(report, "rss")["exceeded"]
    assert budget(report, "uss")["peak"]["at_least"] >= 64 * MIB


def test_a_budget_counts_though_nobody_reads_the_report() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    ran = subprocess.run([*PAGEWALK, "run", "--max-rss", "4K", "sleep", "1"], stderr=writes,
                         check=False)
    os.close(writes)
    assert ran.returncode == 4


def test_options_behind_the_command_are_its_own() -> None:
    words = ["--json", "-p", "1", "--limit", "--watch", "help", "version"]
    ran = run("-q", "echo", *words)
    assert ran.stdout == f"{' '.join(words)}\n"


def test_what_ends_before_it_is_looked_at_kept_no_budget_for_certain() -> None:
    for _ in range(20):
        ran = run("--max-uss", "1G", "--", "true")
        if ran.returncode:
            assert ran.returncode == 3
            assert "Whether USS kept its budget is not known." in ran.stderr
            assert "partial: what it held: it ended before it could be looked at" in ran.stderr
            return
        assert "No look saw more than the budget." in ran.stderr
    # This machine is quick enough to look at each of them.


# ---- what it sees


def test_the_numbers_are_the_kernels() -> None:
    # Other programs that start and end map and unmap the same libraries.
    look_again(check_numbers)


def check_numbers() -> None:
    with running(python(HOLD, 50)) as ran:
        pid = int(ran.said)
        ran.looked_at()
        said = kernel_says(pid)
        ran.looked_at()
        assert kernel_says(pid) == said
        ran.kill(pid)
        code, report = ran.end()
    assert code == 137 and report["signal"] == signal.SIGKILL and report["exit_code"] is None
    for measure, amount in said.items():
        row = budget(report, measure)
        assert row["last"] == {"at_least": amount, "at_most": amount}
        assert row["peak"]["at_least"] >= amount and row["budget"] is row["exceeded"] is None
    assert said["uss"] >= 50 * MIB
    assert report["looks"] >= 2 and report["unseen_end"] < report["seconds"]


def test_a_peak_between_two_looks_shows_in_the_rss() -> None:
    # It is gone when the command says that it may be looked at.
    code = "held = b'x' * (96 << 20); del held; print(flush=True); import sys; sys.stdin.readline()"
    with running(python(code), "--max-rss", "80M", "--every", "3600") as ran:
        ran.say()
        returned, report = ran.end()
    rss = budget(report, "rss")
    if returned != 4:  # only looks at the very beginning: it ended before the next one
        assert rss["exceeded"] is False and rss["peak"]["at_least"] < 80 * MIB
        return
    assert rss["exceeded"] and rss["peak"]["at_least"] > 80 * MIB


def test_what_was_held_before_is_told_by_vm_hwm() -> None:
    code = "held = b'x' * (96 << 20); del held; print(flush=True); import sys; sys.stdin.readline()"
    with running(["sh", "-c", 'exec 9>&1; "$@" 9>&-', "sh", *python(code)]) as ran:
        ran.looked_at()
        ran.say()
        _, report = ran.end()
    # What the approximate counters may miss is far less than 16 MiB.
    assert budget(report, "rss")["peak"]["at_least"] > 80 * MIB


# Holds 48 MiB, of which each of two children writes a third; tells its pid when they have.
FAMILY = """
import os, sys
held, (told, tell), (end, last) = bytearray(48 << 20), os.pipe(), os.pipe()
held[::4096] = b'x' * (48 << 8)  # never more: a copy of all of it would be the worst moment
for _ in range(2):
    if not os.fork():
        os.close(last)
        for at in range(0, 16 << 20, 4096):
            held[at] = 1
        os.write(tell, b'.')
        os.read(end, 1)
        os._exit(0)
os.read(told, 1), os.read(told, 1)
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


def test_what_parent_and_children_share_counts_once() -> None:
    with running(python(FAMILY)) as ran:
        ran.looked_at()
        pid = int(ran.said)
        family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        said = [kernel_says(one) for one in family]
        assert len(said) == 3
        ran.kill(*family)
        _, report = ran.end()
    last = {name: budget(report, name)["last"] for name in ("uss", "rss")}
    # 48 and two times 16; each interpreter has some MiB besides.
    for amount in last.values():
        assert 80 * MIB <= amount["at_least"] <= amount["at_most"] < 130 * MIB
    assert sum(one["rss"] for one in said) > 144 * MIB > 80 * MIB > sum(one["uss"] for one in said)


def test_what_parent_and_children_share_closes_the_sum() -> None:
    with running(python(FAMILY), "--max-uss", "70M") as ran:  # exceeded when the second writes
        ran.looked_at()
        pid = int(ran.said)
        ran.kill(pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        _, report = ran.end()
    (worst,) = report["worst"]
    found, within = worst["together"], worst["together"]["within"]
    assert found["alone"] == sum(one["uss"] for one in worst["processes"])
    assert found["pss"] == sum(one["pss"] for one in worst["processes"])
    for low, high in (("at_least", "at_most"), ("at_most", "at_least")):
        assert found["alone"] + within[low] + found["others"][high] == found["pss"]
    # The parent's last 32 MiB are all three's.
    assert 32 * MIB <= within["at_least"] <= within["at_most"] < 80 * MIB


# Its grandchild outlives it, and waits for a line.
ESCAPED = """
import os, sys
ready, tell = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        held = b'x' * (40 << 20)
        print(os.getpid(), flush=True)
        os.write(tell, b'.')
        sys.stdin.readline()
    os._exit(0)
os.wait()
os.read(ready, 1)
"""


def test_what_leaves_its_session_and_its_parent_is_still_in_the_tree() -> None:
    with running(python(ESCAPED), "--wait", "--max-uss", "32M") as ran:
        ran.looked_at()
        pid = int(ran.said)
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]
        assert int(parent) == ran.process.pid
        ran.say()
        code, report = ran.end()
    assert code == 4 and report["exit_code"] == 0 and not report["left"]
    (row,) = report["worst"]
    assert pid in [one["pid"] for one in row["processes"]]
    assert 40 * MIB <= row["amounts"]["uss"]["at_least"] <= row["amounts"]["uss"]["at_most"]
    named = {part["name"]: part for part in row["made_of"]["mappings"]}
    assert named["[anon]"]["rss"] >= 40 * MIB


def test_without_wait_it_ends_with_the_command_and_tells_what_is_left() -> None:
    with running(python(ESCAPED), "--max-uss", "32M") as ran:
        pid = int(ran.said)
        ran.process.wait(PATIENCE)
        try:
            assert Path(f"/proc/{pid}").exists()  # nobody has ended it
        finally:
            os.kill(pid, signal.SIGKILL)
        code, report = ran.end()
    assert code == 4
    assert [one["pid"] for one in report["left"]] == [pid]


def test_children_of_whoever_became_pagewalk_do_not_count() -> None:
    # As in a script: `server & exec pagewalk run ...`
    started = f"{' '.join(python(HOLD)[:1])} -c \"$0\" 80 <&3 >/dev/null & exec \"$@\""
    with running(python(HOLD, 8), "--max-uss", "64M", before=(
            "sh", "-c", f"exec 3<&0; {started}", HOLD)) as ran:
        ran.looked_at()
        ran.say(b"\n\n")
        code, report = ran.end()
    assert code == 0 and 8 * MIB < budget(report, "uss")["peak"]["at_least"] < 64 * MIB


def test_the_program_after_exec_is_looked_at() -> None:
    with running(["sh", "-c", 'exec "$@"', "sh", *python(HOLD, 30)], "--max-pss", "20M") as ran:
        ran.looked_at()
        ran.say()
        code, report = ran.end()
    (row,) = report["worst"]
    assert code == 4 and row["measure"] == "pss"
    (process,) = row["processes"]
    assert process["pid"] == int(ran.said) and "import os, sys" in process["command"]


# ---- what it passes on


TRAP = """
import os, signal, sys
count = 0
def heard(number, frame):
    global count
    count += 1
    os.write(1, b"%d\\n" % number)  # print() may not be called from a handler that it is called by
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(one, heard)
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.readline()
sys.exit(10 + count)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_the_command(number: signal.Signals) -> None:
    with running(python(TRAP)) as ran:
        ran.process.send_signal(number)
        assert ran.process.stdout is not None
        assert int(ran.process.stdout.readline()) == number
        ran.say()
        code, report = ran.end()
    assert (code, report["exit_code"]) == (11, 11)


def test_a_signal_that_ends_the_command_still_has_a_report() -> None:
    with running(python(HOLD, 1)) as ran:
        ran.looked_at()
        ran.process.terminate()
        ran.process.wait(PATIENCE)  # before end() closes its input
        code, report = ran.end()
    assert code == 128 + signal.SIGTERM and report["signal"] == signal.SIGTERM
    assert report["looks"] > 0


def test_ctrl_c_on_a_terminal_reaches_the_command_once() -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [*PAGEWALK, "run", "--every", "0.01", "--", *python(TRAP)])
    try:
        with open(terminal, "rb", 0) as screen:
            assert screen.readline().strip().isdigit()
            os.write(terminal, b"\x03")
            while not screen.readline().strip().endswith(b"2"):  # the terminal echoes ^C
                pass
            # A second one would come while it sleeps in readline(), long before this is read.
            os.write(terminal, b"\n")
            said = b"".join(iter(lambda: line(screen), b""))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
        assert b"ended with exit code 11" in said
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def line(screen: object) -> bytes:
    # Linux reports the end of a terminal as EIO.
    try:
        return screen.readline()  # type: ignore[attr-defined, no-any-return]
    except OSError:
        return b""


def test_the_command_gets_what_we_were_given() -> None:
    words = ("sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; env -u _; cat; ls"
             " /proc/self/fd")
    environment = {**os.environ, "ODD": "a\nb"}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    plain = subprocess.run(words, capture_output=True, text=True, input="in\n", check=True,
                           env=environment)
    ours = run("-q", "--", *words, input="in\n", env=environment)
    # posix_spawn() leaves the two signals that glibc keeps for itself ignored.
    assert ours.stdout.replace("SigIgn:\t00000001800", "SigIgn:\t00000000000") == plain.stdout


# ---- where it writes


@pytest.mark.parametrize("form", ["text", "json"])
def test_names_of_all_kinds(form: str, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/a\n\x1b[31m <&\"'>\xff \xe2\x80\xae ]]>.sh"
    Path(os.fsdecode(odd)).write_text("#!/bin/sh\necho ready\nread line\n")
    os.chmod(odd, 0o755)
    with running([os.fsdecode(odd)], "--max-uss", "4K", "-f", form, "--junit",
                 str(tmp_path / "out.xml")) as ran:
        ran.looked_at()
        ran.say()
        ran.process.communicate(None, PATIENCE)
        said = (ran.folder / "report").read_text()
    assert ran.process.returncode == 4 and seen(said)
    if form == "json":
        told = json.loads(said)
        assert os.fsencode(told["command"][0]) == odd
        assert os.fsencode(told["worst"][0]["processes"][0]["command"]).endswith(odd)
    (suite,) = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert suite.attrib["failures"] == "1" and "\x1b" not in suite.attrib["name"]


def test_a_command_that_kept_its_budgets_is_quiet(tmp_path: Path) -> None:
    with running(python(HOLD, 1), "-q", "--max-uss", "1G", "--junit",
                 str(tmp_path / "out.xml")) as ran:
        ran.looked_at()
        ran.say()
        out, err = ran.process.communicate(None, PATIENCE)
    assert (ran.process.returncode, out, err) == (0, b"", b"")
    (suite,) = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [case.attrib["name"] for case in suite.iter("testcase")] == [
        "command", "USS at most 1048576 KiB"]
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"
    values = {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")}
    assert int(values["pagewalk.uss.peak_at_least"]) > MIB
    assert values["pagewalk.uss.budget"] == str(1 << 30)


@pytest.mark.parametrize("option", ["--output", "--junit"])
def test_where_nothing_can_be_written_nothing_is_started(option: str, tmp_path: Path) -> None:
    ran = run(option, "/nonexistent/file", "--", "touch", str(tmp_path / "started"))
    assert ran.returncode == 1 and not (tmp_path / "started").exists()
    assert ran.stderr == "pagewalk: cannot read or write /nonexistent/file: No such file or" \
                         " directory\n"


def test_an_end_is_noticed_though_another_thread_took_the_signal() -> None:
    code = """
import os, threading
from contextlib import suppress
from pagewalk.history import child

def slow(self, look=child.Tree.look):
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # it ends meanwhile
    return look(self)

child.Tree.look = slow
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(child.run_with_budgets(["true"], {}, 0.05).code)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert done.stdout == b"0\n"
