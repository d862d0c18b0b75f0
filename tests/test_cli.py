"""The command line as people type it: help, examples, options, exit codes, completion."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from pagewalk.account.ledger import Line
from pagewalk.cli import COMMANDS, cli, fail, main, usual
from pagewalk.commands import look_for_garbage, note, output
from pagewalk.commands.explain import value
from pagewalk.commands.options import Duration, Request, complete_target
from pagewalk.proc.processes import Process
from pagewalk.render.columns import choose
from tests.documents import ROOT
from tests.live.command import pagewalk_here
from tests.render.written import HOSTILE, Terminal, seen
from tests.targets import asleep

PAGEWALK = [sys.executable, "-m", "pagewalk"]


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PAGEWALK, *args], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "COLUMNS": "80", **environ},
    )


@pytest.fixture(scope="module")
def sleeper() -> Iterator[str]:
    """Return the pid of a process that does nothing."""
    process = subprocess.Popen(["sleep", "1000"])
    try:
        asleep(process.pid, "sleep")
        yield str(process.pid)
    finally:
        process.kill()
        process.wait()


def helped(*args: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*args, "--help"]) == 0
    return capsys.readouterr().out


# ---- help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_is_its_docstring(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helped(name, capsys=capsys)
    assert text.startswith(f"Usage: pagewalk {name} ")
    assert f"  pagewalk {name}" in text  # an example


def test_the_group_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys=capsys)
    assert all(re.search(rf"^  {name} +\w", text, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("columns", ["80", "40"])
def test_no_summary_is_cut(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = helped(capsys=capsys)
    told = text[text.index("Commands:") : text.index("Exit codes")]
    assert "..." not in told
    flat = " ".join(told.split())
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and f" {name} {command.short_help} " in f"{flat} "


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = helped(*name.split(), capsys=capsys).splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [o.name for o in options if not o.help or not o.help.endswith(".")] == []


def examples() -> list[str]:
    context = click.Context(cli)
    texts = [cli.help or ""]
    texts += [c.help or "" for name in COMMANDS if (c := cli.get_command(context, name))]
    return [line.strip() for text in texts for line in text.splitlines()
            if line.strip().startswith("pagewalk ") and "`" not in line]


# What goes on until somebody ends it, or writes where we may not: other tests run it.
ENDLESS = re.compile("export --(listen|textfile)")


def test_every_command_has_examples() -> None:
    shown = {line.split()[1] for line in examples()}
    assert shown >= set(COMMANDS)


@pytest.mark.parametrize("example", sorted(set(examples())))
def test_an_example_works_when_pasted(
    example: str, sleeper: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if ENDLESS.search(example):
        pytest.skip("it goes on until a signal ends it")
    monkeypatch.chdir(tmp_path)
    for file in () if " record " in example else re.findall(r" (\w+\.pagewalk)\b", example):
        assert main(["record", sleeper, "-o", file]) in (0, 3)
    if " fleet " in example:
        assert main(["record", sleeper, "--every", "10ms", "--for", "10ms", "-o", "series"]) == 0
    capsys.readouterr()
    code = main(shlex.split(example.replace("$$", sleeper))[1:])
    out, err = capsys.readouterr()
    if example.split()[1] == "vtop" and os.geteuid() != 0:
        assert code == 1 and "--source ebpf" in err  # an ordinary user cannot read page tables
        return
    # For an ordinary user frames are withheld, which makes it partial.
    # Of all processes a security module may hide some from root too, and some change meanwhile.
    name = example.split()[1]
    everybody = name in ("who", "overview", "export") or (
        name in ("top", "maps") and "$$" not in example)
    assert code in ((0,) if os.geteuid() == 0 and not everybody else (0, 3)), err
    assert out


# ---- options and exit codes


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--bogus"], "bogus"),
        (["show", "--bogus", "1"], "--bogus"),
        (["show"], "TARGET"),
        (["maps", "1", "--format", "xml"], "xml"),
        (["pages", "1", "--format", "yaml"], "yaml"),
        (["doctor", "--format", "csv"], "csv"),
        (["show", "1", "2"], "2"),
        (["show", "1", "--budget", "0"], "budget"),
        (["show", "1", "--budget", "soon"], "soon"),
        (["show", "1", "--budget", "nan"], "'nan' is not a number"),
        (["show", "1", "--watch=nan"], "'nan' is not a number"),
        (["show", "1", "--watch=inf"], "inf is not in the range"),
        (["--watch=1e10"], "10000000000.0 is not in the range"),
        (["heap", "1", "--freeze", "--longest-stop", "nan"], "'nan' is not a number"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_mistake(
    args: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert complaint in err
    assert out == ""


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (["no such program"], 2, "no process is called 'no such program'"),
        (["show", "0"], 2, "'0' is not a valid pid\n"),
        (["4194305"], 5, "process 4194305 does not exist"),  # above every pid_max
        (["maps", "SLEEPER", "--columns", "rss,nonsense"], 2, "no column is called 'nonsense'"),
        (["pages", "SLEEPER", "--where", "anon,oops"], 2, "unknown term 'oops'"),
        (["pages", "SLEEPER", "--vma", "nowhere"], 2, "no VMA is called 'nowhere'"),
        (["pages", "SLEEPER", "--range", "5"], 2, "'5' is not two hexadecimal addresses"),
        (["pages", "SLEEPER", "--range", "2000-1000"], 2, "is empty"),
        (["pages", "SLEEPER", "--range", "1000-2000"], 2, "the target has no VMA in"),
        (["pages", "SLEEPER", "--range", "0-fffffffffffffffff"], 2, "exceeds 64 bits"),
        (["pages", "SLEEPER", "-f", "log", "--where", "anon"], 2, "use another format with"
         " --where"),
        (["show", "SLEEPER", "--watch", "1", "--freeze"], 2, "leave out --freeze and --output"),
        (["heap", "SLEEPER", "--watch", "1", "--freeze"], 2, "leave out --freeze and --output"),
        (["show", "SLEEPER", "--watch", "1", "-f", "log"], 2, "leave out --watch"),
        (["heap", "SLEEPER", "--watch", "1", "--ask"], 2, "leave out --watch"),
        (["--watch", "1", "-o", "/nonexistent/file"], 2, "leave out --freeze and --output"),
        (["maps", "SLEEPER", "--watch", "1", "-o", "/nonexistent/file"], 2, "leave out --freeze"),
        (["maps", "SLEEPER", "--sort", "rs"], 2, "did you mean 'rss'?"),
        (["show", "SLEEPER", "--source", "magic"], 2, "no source is called 'magic'"),
        (["show", "SLEEPER", "-o", "/nonexistent/file"], 1,
         "cannot read or write /nonexistent/file: No such file or directory\n"),
    ],
)
def test_a_failure_is_one_sentence_and_an_exit_code(
    args: list[str], code: int, complaint: str, sleeper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([sleeper if arg == "SLEEPER" else arg for arg in args]) == code
    out, err = capsys.readouterr()
    assert err.startswith("pagewalk: ")
    assert complaint in err
    assert "Traceback" not in err
    assert out == ""


TYPED: list[tuple[str, str]] = [
    # an order, a number of rows, a form
    ("--sort rss", "overview --sort rss"), ("--sort rss 1", "show --sort rss 1"),
    ("show 1 --sort rss", "show 1 --sort rss"), ("--limit 3", "overview --limit 3"),
    ("-n 3", "overview -n 3"), ("1 -n 3", "show 1 -n 3"),
    ("1 --json", "show 1 --format json"), ("--json 1", "show --format json 1"),
    ("--json", "overview --format json"), ("--csv maps 1", "maps --format csv 1"),
    ("-H", "overview -H"), ("-H 1", "show -H 1"), ("1 --human", "show 1 --human"),
    # a process
    ("-p 1", "show 1"), ("maps -p 1", "maps 1"), ("--pid 1 maps", "maps 1"), ("-p1", "show 1"),
    ("--pid=1", "show 1"), ("vtop -p 1 heap", "vtop 1 heap"), ("pyth*", "show pyth*"),
    ("svc.py", "show svc.py"), ("/usr/bin/java", "show /usr/bin/java"),
    ("-- -p", "show -- -p"), ("show -- -p --json", "show -- -p --json"),
    # again and again
    ("1 --interval 3", "show 1 --watch 3"), ("1 --interval=3", "show 1 --watch=3"),
    ("1 --watch", "show 1 --watch 2"), ("--watch", "overview --watch 2"),
    ("--watch java", "show --watch 2 java"), ("1 --watch --json", "show 1 --watch 2 --format json"),
    ("1 --watch .5", "show 1 --watch .5"),
    # a command
    ("", "overview"), ("1", "show 1"), ("1 maps --all", "maps 1 --all"), ("maps 1", "maps 1"),
    ("maps maps", "maps maps"), ("-H 1 maps", "maps -H 1"), ("1 heap", "heap 1"),
    # several processes
    ("1 2", "share 1 2"), ("--tree 1", "share --tree 1"), ("--user=x", "share --user=x"),
    ("1 --tree 2 --json", "share 1 --tree 2 --format json"), ("-a", "share -a"),
    ("--cgroup app --watch", "share --cgroup app --watch 2"), ("ab c*", "share ab c*"),
    ("maps 1 --all", "maps 1 --all"), ("explain --cgroup 1", "explain --cgroup 1"),
    ("help", "--help"), ("help maps", "maps --help"), ("version", "--version"),
    ("-h", "-h"), ("--help", "--help"), ("-V", "-V"), ("1 --help", "show 1 --help"),
    # the value of an option is left alone
    ("maps 1 --columns --json", "maps 1 --columns --json"), ("maps 1 -o -p", "maps 1 -o -p"),
    ("pages 1 --vma -p --json", "pages 1 --vma -p --format json"),
    ("maps 1 -qo --json -p", "maps 1 -qo --json"),
    ("maps 1 -ox --json", "maps 1 -ox --format json"),
    ("maps 1 --sort -rss", "maps 1 --sort -rss"), ("--vma maps 1", "show --vma maps 1"),
]


@pytest.mark.parametrize(("typed", "as_if"), TYPED, ids=[typed for typed, _ in TYPED])
def test_what_people_type_out_of_habit(typed: str, as_if: str) -> None:
    assert usual(typed.split()) == as_if.split()


@pytest.mark.parametrize(("args", "hint"), [
    (["shwo"], "did you mean 'pagewalk show'?"), (["mpas", "1"], "did you mean 'pagewalk maps'?"),
    (["mpas"], "did you mean 'pagewalk maps'?"), (["--json", "shwo"], "'pagewalk show'?"),
    (["show", "1", "2"], "(2); give one TARGET, or all of them to pagewalk share"),
    (["maps", "1", "--tree", "2"], "Did you mean 'pagewalk share --tree PID'?"),
    (["heap", "--all"], "Did you mean 'pagewalk share --all'?"),
    (["vtop", "1", "0", "-u", "x"], "Did you mean 'pagewalk share -u USER'?"),
    (["help", "shwo"], "did you mean 'pagewalk show'?"),
    (["htop"], "did you mean 'pagewalk top'?"), (["ps"], "did you mean 'pagewalk processes'?"),
    (["maps", "1", "--srot", "rss"], "--sort"), (["maps", "1", "--colums", "rss"], "--columns"),
    (["maps", "1", "--sort", "rsss"], "did you mean 'rss'?"),
    (["pages", "1", "--where", "anno"], "did you mean 'anon'?"),
    (["pages", "1", "--where", "mapcout>1"], "did you mean 'mapcount'?"),
    (["pages", "1", "--where", "mapcount>lots"], "does not compare mapcount with a number"),
    (["maps", "1", "-s", "rss"], "Did you mean '--sort COLUMN'?"), (["-d", "1"], "--watch SECONDS"),
    (["-X", "1"], "pagewalk maps TARGET --all"), (["watch", "1"], "pagewalk TARGET --watch 2"),
    (["maps", "1", "--no-color"], "'--color never'?"), (["1", "-b"], "'--format json'?"),
    (["maps", "1", "--columns", "rss uss"], "separated by commas: rss,uss"),
    (["pages", "1", "--where", "mapcount"], "compare mapcount with a number: mapcount>2"),
])
def test_a_slip_is_answered_with_what_may_have_been_meant(
    args: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    err = capsys.readouterr().err
    assert hint in err and "freeze" not in err


@pytest.mark.parametrize("words", [["show"], ["maps"], ["maps", "--by", "kind"]], ids=" ".join)
def test_an_order_by_what_is_withheld_is_no_silent_one(
    words: list[str], sleeper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*words, sleeper, "--sort", "pss", "--counts"])
    assert "not sorted: pss is withheld" in capsys.readouterr().err
    main([*words, sleeper, "--sort", "size", "--counts"])
    assert "not sorted" not in capsys.readouterr().err


def test_the_largest_differences_are_first_whichever_way_they_go() -> None:
    lines = [Line("a", "rss", 5, 9, (), None), Line("b", "rss", 5, None, (), None),
             Line("c", "rss", 9, 7, (), None)]
    for sort, order in (("difference", "acb"), ("-difference", "cab")):
        rows = choose("explain", None, sort).rows(lines, value)
        assert "".join(line.against for line in rows) == order


def test_a_target_that_is_not_there_is_not_taken_for_a_slip(
    capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nothing-of-that-name"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_a_name_in_a_message_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "\x1b[2Jx"]) == 2
    assert r"no process is called '\x1b[2Jx'" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["--freee", "--freez", "--freezer", "--free", "--asq"])
def test_options_that_disturb_the_target_are_never_suggested(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heap", "1", typed]) == 2
    assert capsys.readouterr().err.endswith(f"Error: No such option '{typed}'.\n")


def test_a_harmless_option_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "1", "--formt", "json"]) == 2
    assert "--format" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["show", "1", f"--{HOSTILE}"], ["show", "1", "--format", HOSTILE], ["show", HOSTILE],
             ["show", "1", "-o", f"/nonexistent/{HOSTILE}"], ["vtop", "1", HOSTILE]],
)
def test_the_users_own_input_cannot_drive_the_terminal(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) != 0
    err = capsys.readouterr().err
    assert err and seen(err)


def test_a_note_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note(Request("auto", "text", None, False), f"partial: {HOSTILE}")
    err = capsys.readouterr().err
    assert err.startswith("pagewalk: partial: ") and seen(err)


def test_a_file_name_may_have_the_maximum_length(sleeper: str, tmp_path: Path) -> None:
    out = tmp_path / ("x" * 255)
    assert main(["show", sleeper, "--quiet", "--output", str(out)]) in (0, 3)
    assert os.listdir(tmp_path) == [out.name]


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_a_full_disk_fails_the_command_and_leaves_nothing(
    sleeper: str, tmp_path: Path, form: str
) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-m", "pagewalk", "maps", sleeper, "-f", form, "-o", tmp_path / "out"],
        preexec_fn=small_files, capture_output=True, text=True, timeout=240, check=False,
    )
    assert done.returncode == 1 and "File too large" in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []


def test_other_writers_to_the_same_folder_are_left_alone(tmp_path: Path) -> None:
    # The other writer may have our pid, in a PID namespace of its own.
    with output(str(tmp_path / "a")) as one, output(str(tmp_path / "b")) as other:
        one.write("a")
        other.write("b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize("mebibytes", [30, 45, 60])
def test_a_library_that_runs_out_of_memory_is_one_sentence(sleeper: str, mebibytes: int) -> None:
    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    done = subprocess.run(
        [sys.executable, "-m", "pagewalk", "show", sleeper],
        preexec_fn=little_memory, capture_output=True, text=True, timeout=240, check=False,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    # OpenBLAS, which numpy loads, ends the program itself; from which limit on depends on numpy's.
    assert done.stderr.startswith(("pagewalk: ", "OpenBLAS error: "))


def test_a_compiled_module_that_is_cut_is_no_interrupt(sleeper: str, tmp_path: Path) -> None:
    """Python leaves one behind where files may not be large (RLIMIT_FSIZE)."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def show() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pagewalk", "show", sleeper], capture_output=True, text=True,
            timeout=240, check=False, env=environ)

    assert show().returncode in (0, 3)
    [module] = tmp_path.glob("**/pagewalk/walking/walk.*.pyc")
    os.truncate(module, 100)
    done = show()
    assert done.returncode == 1
    assert done.stderr.startswith("pagewalk: cannot load part of pagewalk: "), done.stderr
    assert "reinstall it" in done.stderr and done.stderr.count("\n") == 1


def test_a_message_is_wrapped_on_a_terminal_and_a_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["maps", "1", "--columns", "rss,qq"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert fail("one two " * 20 + "\n  4711  not wrapped", 2) == 2
    *wrapped, last = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(wrapped) == 3 and max(map(len, wrapped)) <= 60 and last == "  4711  not wrapped"


def test_a_target_alone_means_show(sleeper: str, capsys: pytest.CaptureFixture[str]) -> None:
    def head(*args: str) -> str:
        main([*args])
        return capsys.readouterr().out.splitlines()[0]

    assert head(sleeper) == head("show", sleeper)
    assert head(sleeper).startswith(f"process {sleeper} (sleep)")


def test_without_arguments_the_first_screen_is_shown() -> None:
    done = run(COLUMNS="80")
    assert done.returncode in (0, 3)  # partial if a security module protects a process
    # On a machine with many processes, or none of whose frames may be seen, it says so below that.
    said = re.split(r"(?m)^(?:\d+ process.* not walked|n/a: |partial: )", done.stdout)[0]
    lines = said.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert re.match(r"\d+ KiB of RAM: processes \d+ KiB, files in cache", lines[0])
    assert ("\npartial: " in done.stdout) == bool(done.returncode)


def test_data_is_on_stdout_and_notes_on_stderr(
    sleeper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["show", sleeper, "--format", "json", "--freeze"]
    assert main(args) in (0, 3)
    out, err = capsys.readouterr()
    assert json.loads(out)["process"]["pid"] == int(sleeper)
    assert re.search(rf"^pagewalk: process {sleeper} was stopped for [\d.]+ ms$", err, re.MULTILINE)
    main([*args, "--quiet"])
    assert capsys.readouterr().err == ""


def test_a_range_is_cut_out_of_the_vmas(sleeper: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open(f"/proc/{sleeper}/maps", encoding="utf-8") as file:
        start = int(file.readline().split("-")[0], 16)
    # Bytes 1 to 4097 touch two pages; the program's first VMA has at least that many.
    main(["pages", sleeper, "--range", f"{start + 1:x}-{start + 4097:x}", "-f", "json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(row["size"] for row in rows) == 8192
    assert int(rows[0]["addr"], 16) == start


@pytest.mark.parametrize("name", ["heap", "[heap]"])
def test_a_vma_is_chosen_by_name(
    name: str, sleeper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pages", sleeper, "--vma", name, "--format", "json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with open(f"/proc/{sleeper}/maps", encoding="utf-8") as file:
        line = next(line for line in file if line.endswith("[heap]\n"))
    start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
    assert int(rows[0]["addr"], 16) == start
    assert sum(row["size"] for row in rows) == end - start


def test_a_broken_pipe_ends_quietly() -> None:
    script = f"{shlex.join(PAGEWALK)} pages $$ --format log | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}; exit $?"],
                          capture_output=True, text=True, timeout=240, check=False)
    assert done.stderr == "" or done.stderr.startswith("pagewalk: partial")
    assert len(done.stdout.splitlines()) == 1


# ---- speed of starting


def loaded_by(*args: str) -> set[str]:
    """Return the modules that a command line loads."""
    code = (
        "import sys\nfrom pagewalk.cli import main\nmain(sys.argv[1:])\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True,
                          timeout=240, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["maps", "--help"]])
def test_help_does_not_load_numpy(args: list[str]) -> None:
    assert "numpy" not in loaded_by(*args)


def test_a_command_loads_only_itself(sleeper: str) -> None:
    loaded = loaded_by("show", sleeper)
    assert "pagewalk.commands.show" in loaded
    others = {COMMANDS[name] for name in COMMANDS} - {"pagewalk.commands.show"}
    assert loaded.isdisjoint(others | {"drgn", "pagewalk.render.json", "pagewalk.render.csv"})


# ---- shell completion


def test_completion_is_requested_through_the_environment() -> None:
    assert "_PAGEWALK_COMPLETE" in run(_PAGEWALK_COMPLETE="bash_source").stdout
    offered = run(_PAGEWALK_COMPLETE="bash_complete", COMP_WORDS="pagewalk expl", COMP_CWORD="1")
    assert "plain,explain" in offered.stdout.splitlines()  # besides processes with such a name


def completed(line: str) -> set[str]:
    """Return what <Tab> offers for the last word of ``line``, computed in this process."""
    words = line.split(" ")
    completion = BashComplete(cli, {}, "pagewalk", "_PAGEWALK_COMPLETE")
    return {item.value for item in completion.get_completions(words[1:-1], words[-1])}


def test_commands_options_formats_and_targets_are_completed(sleeper: str) -> None:
    assert "explain" in completed("pagewalk expl")  # besides processes with such a name
    assert completed("pagewalk maps --for") == {"--format"}
    assert completed("pagewalk doctor --format ") == {"text", "json"}
    assert completed("pagewalk maps --sort swap_p") == {"swap_private", "swap_pss"}
    assert completed("pagewalk heap --columns free,scat") == {"free,scattered"}
    assert completed("pagewalk processes --sort ") == {
        "pid", "rss", "name", "argv0", "uid", "script", "command"}
    assert sleeper in completed(f"pagewalk show {sleeper[:-1]}")
    assert "sleep" in completed("pagewalk show slee")
    assert sleeper in completed(f"pagewalk {sleeper[:-1]}")


@pytest.mark.parametrize(
    "name", ["a b", "$(x)", "a;b", "a\nplain", "\x1b[2J", "\u202ea", "x\udcff"]
)
def test_a_name_that_a_shell_would_interpret_is_not_completed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Process(4711, name, "", 0, 0), Process(4712, "日本", "", 0, 0)]
    monkeypatch.setattr("pagewalk.proc.processes.read_processes", lambda: rows)
    assert complete_target(None, None, "") == ["4711", "4712", "日本"]


def test_garbage_is_looked_for_once_a_process_is_opened_but_not_before() -> None:
    begin = "import gc; from pagewalk import __main__ as program, cli; "
    tell = "cli.run = lambda: print(gc.isenabled()); program.run()"
    words = [sys.executable, "-c", begin + tell]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
    gc.disable()
    try:
        look_for_garbage()
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize(("word", "seconds"), [
    ("100ms", 0.1), ("2s", 2.0), ("0.05", 0.05), ("5m", 300.0), ("1h", 3600.0),
])
def test_a_time_is_a_number_with_a_unit(word: str, seconds: float) -> None:
    assert Duration(least=0.001, most=3600).convert(word, None, None) == seconds


@pytest.mark.parametrize("command", [["run", "--", "true"], ["record", "1", "-o", "x"]])
def test_run_and_record_take_the_same_times(command: list[str]) -> None:
    for word, says in (("10 s", "is no duration, such as 500ms"), ("-1", "is no duration"),
                       ("nan", "is no duration"), ("9" * 400, "is no"), ("0.0001", "between")):
        ran = pagewalk_here(command[0], "--every", word, *command[1:])
        assert ran.code == 2 and says in ran.err, word


def test_a_kind_of_option_needs_no_newer_click_than_we_ask_for() -> None:
    # click.ParamType[float] is an error before click 8.4.
    for path in (ROOT / "src/pagewalk/commands").glob("*.py"):
        assert "ParamType[" not in path.read_text(), path
