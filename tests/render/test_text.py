"""Text for people: it fits in 80 columns, is coloured only on a terminal, and is not hijackable."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import click
import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st

from pagewalk.account.groups import by_kind
from pagewalk.account.rollup import filled
from pagewalk.cli import COMMANDS, cli, usual
from pagewalk.model.columns import READ, Backing, Withheld
from pagewalk.proc.processes import Process
from pagewalk.render import machine, text, view
from pagewalk.render.terminal import CODES, cells, printable, shorten, width
from tests import by_hand
from tests.by_hand import PAGE
from tests.properties import always
from tests.render import written
from tests.render.written import Terminal

COLOUR = re.compile(r"\x1b\[\d+m")
SCREENS = ("show", "groups", "maps", "heap", "explain", "doctor", "processes")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal with 80 columns and colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("name", SCREENS)
def test_80_columns_are_enough(terminal: Terminal, name: str, frames: bool) -> None:
    lines = COLOUR.sub("", written.write("text", name, terminal, frames=frames)).split("\n")
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("names", ["", "日本語"])
@pytest.mark.parametrize("room", [60, 40, 28, 24])
@pytest.mark.parametrize("name", [*SCREENS, "pages"])
def test_a_narrow_terminal_has_tables_too(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, room: int, names: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    told = COLOUR.sub("", written.write("text", name, terminal, names=names))
    # A word that is too long for a line, such as a path in a sentence, has a line of its own.
    wide = [line for line in told.split("\n") if cells(line) > room and " " in line.strip()]
    # What is to be copied is not broken either.
    assert [line for line in wide if not re.search("mmap|pagewalk", line)] == []
    assert "SHARE" not in told


@pytest.mark.parametrize("name", [*SCREENS, "pages", "vtop"])
def test_every_screen_ends_with_what_to_try_next(terminal: Terminal, name: str) -> None:
    end = COLOUR.sub("", written.write("text", name, terminal)).splitlines()[-1]
    commands = re.findall(r"pagewalk(?: [\w.+=:-]+)*", end)
    assert commands
    for command in commands:
        words = usual(command.split()[1:])
        assert words[0] in COMMANDS
        found = cli.get_command(click.Context(cli), words[0])
        assert found is not None
        found.make_context(words[0], words[1:])  # raises for what does not exist
        assert "--freeze" not in words
    if name not in ("processes", "vtop"):
        assert end.startswith("next: ")
    if name != "processes":
        assert "next:" not in written.write("text", name)


@pytest.mark.parametrize(("name", "option"), [
    ("[heap]", "--vma heap"), ("", "--vma anon"), ("/usr/lib/libc.so.6", "--vma libc.so.6"),
    ("/tmp/a b", "--range 100000000-100001000"), ("/tmp/$(reboot)", "--range 100000000-100001000"),
    ("/tmp/-x", "--range 100000000-100001000"), ("/tmp/\x1b[2J", "--range 100000000-100001000"),
    ("/tmp/日本", "--range 100000000-100001000"), ("/memfd:x (deleted)",
                                                "--range 100000000-100001000"),
])
def test_a_name_is_only_suggested_if_a_shell_takes_it_for_one_word(name: str, option: str) -> None:
    of = by_hand.vmas([(1 << 32, 1, READ, 0, Backing.ANON, name)])
    assert text.largest(by_hand.by_vma(by_hand.walk([], of)), [0]) == option


@pytest.mark.parametrize("name", ["groups", "show", "processes"])
def test_shares_are_drawn_on_a_wide_terminal_only(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Terminal, "encoding", "utf-8")
    options = {"whole": 9 << 30} if name == "processes" else {}
    assert "█" in written.write("text", name, terminal, **options)
    assert "█" not in written.write("text", name, **options)


@pytest.mark.parametrize("name", ["show", "maps"])
def test_sixteen_terabytes_fit_too(terminal: Terminal, name: str) -> None:
    of = by_hand.vmas([(1 << 32, (1 << 44) // PAGE, READ, 0, Backing.ANON, "[heap]")])
    table = by_hand.by_vma(by_hand.walk([], of))
    groups = by_kind(table, np.zeros(0, np.uint64))
    arguments = (table, [], groups) if name == "show" else (table, [0])
    view("text", name, human=False)(*arguments, terminal)
    lines = COLOUR.sub("", terminal.getvalue()).split("\n")
    assert any("17 179 869 184" in line for line in lines)
    assert [line for line in lines if len(line) > 80] == []


def test_the_first_screen_fits_80_by_24(terminal: Terminal) -> None:
    many = [Process(n, f"p{n}", "", 0, n << 20) for n in range(1, 200)]
    machine.processes(many[:-13:-1], "Linux 6.18, x86_64, 4 KiB pages, root", terminal)
    lines = terminal.getvalue().splitlines()
    assert len(lines) < 24  # and the prompt
    assert any("p199" in line for line in lines)


def test_the_number_of_rows_that_do_not_fit_is_shown(terminal: Terminal) -> None:
    assert "hidden, terminal too narrow: PRESENT" in written.write("text", "maps", terminal)


def test_pages_on_a_narrow_terminal_say_what_is_hidden(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    assert "hidden" not in written.write("text", "pages", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    hidden = "hidden, terminal too narrow: PHYSICAL,\n  KIB, FLAGS\n"
    assert hidden in COLOUR.sub("", written.write("text", "pages", Terminal()))


@pytest.mark.parametrize("room", [30, 40, 60])
def test_what_a_narrow_terminal_says_of_a_facility_is_below_its_name(
    room: int, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    lines = COLOUR.sub("", written.write("text", "doctor", terminal)).splitlines()
    assert max(map(len, lines)) <= room
    edges = {len(line) - len(line.lstrip()) for line in lines if line.startswith("   ")}
    beside = room == 60  # and that of the second line of what to do
    assert edges == ({18, 21} if beside else {7, 10})


def test_a_file_gets_every_column_and_the_whole_name() -> None:
    head, *rows, total = written.write("text", "maps").splitlines()
    assert re.split("  +", head) == [
        "ADDRESS", "PERM", "SIZE", "PRESENT", "RSS", "NOT PRES", "NO TABLE", "SWAP", "PSS", "USS",
        "ANON", "FILE", "SHMEM", "ZERO", "SPECIAL", "HUGETLB", "NAME",
    ]
    assert re.split("  +", rows[0]) == [
        "000000400000", "r-xp", "16", "8", "8", "8", "n/a", "0", "5", "4", "0", "8", "0", "0", "0",
        "0", "/usr/bin/program",
    ]
    assert rows[2].endswith(r"/tmp/a b\x1b[31m\012c (deleted)")
    assert total.endswith("total of 4 VMAs")


def test_columns_are_chosen(terminal: Terminal) -> None:
    lines = written.write("text", "maps", terminal, columns=("anon", "ksm")).splitlines()
    assert COLOUR.sub("", lines[0]).split() == ["ADDRESS", "PERM", "ANON", "KSM", "NAME"]
    assert lines[2].split()[2:4] == ["12", "4"]


@pytest.mark.parametrize("name", SCREENS)
def test_colours_on_a_terminal(terminal: Terminal, name: str) -> None:
    assert COLOUR.search(written.write("text", name, terminal))


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
@pytest.mark.parametrize("name", SCREENS)
def test_no_colours_where_none_are_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert "\x1b" not in written.write("text", name, terminal)


@pytest.mark.parametrize("name", [*SCREENS, "pages"])
def test_colours_are_the_only_escapes(terminal: Terminal, name: str) -> None:
    found = set(re.findall(r"\x1b[^m]*m?", written.write("text", name, terminal)))
    assert found <= CODES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/usr/bin/café", "/usr/bin/café"),
        ("a b", "a b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # right-to-left override
        (b"\xff".decode(errors="surrogateescape"), r"\udcff"),
    ],
)
def test_a_name_is_made_printable(name: str, expected: str) -> None:
    assert printable(name) == expected


@pytest.mark.parametrize(("asked", "large", "told"), [
    (None, True, "16T"), (None, False, "1 024"), (True, False, "1.0M"),
    (False, True, "17 179 869 184"),
])
def test_a_terminal_shows_large_amounts_in_units(
    terminal: Terminal, asked: bool | None, large: bool, told: str
) -> None:
    pages = (1 << 44 if large else 1 << 20) // PAGE
    of = by_hand.vmas([(1 << 32, pages, READ, 0, Backing.ANON, "[heap]")])
    view("text", "maps", asked)(by_hand.by_vma(by_hand.walk([], of)), [0], terminal)
    assert told in terminal.getvalue()


def test_a_pipe_never_does_by_itself() -> None:
    of = by_hand.vmas([(1 << 32, (1 << 44) // PAGE, READ, 0, Backing.ANON, "[heap]")])
    out = io.StringIO()
    view("text", "maps")(by_hand.by_vma(by_hand.walk([], of)), [0], out)
    assert "17179869184" in out.getvalue()


@example("0000\u1ab0", 3)  # a combining mark takes no column
@example("0~\u3042", 3)  # a wide character takes two
@always(st.text(), st.integers(3, 60))
def test_a_shortened_text_fits_and_keeps_its_ends(name: str, room: int) -> None:
    short = shorten(name, room)
    assert cells(short) <= room
    if cells(name) > room:
        # One of its "~" stands for what was cut out; the others are the name's own.
        assert any(name.startswith(short[:at]) and name.endswith(short[at + 1 :])
                   for at, character in enumerate(short) if character == "~")
        if name.isascii():
            assert len(short) == room
    else:
        assert short == name


def test_a_page_is_one_line() -> None:
    lines = written.write("text", "pages").splitlines()
    assert lines[0].split() == ["ADDRESS", "PHYSICAL", "KIB", "STATE", "MAPS", "FLAGS"]
    assert [line.split() for line in (lines[1], lines[3], lines[7])] == [
        ["0000000000400000", "0000000000100000", "4", "file", "1", "exclusive,uptodate,lru,mmap"],
        ["0000000000402000", "-", "8", "absent", "-"],
        ["0000000000603000", "-", "4", "swapped", "-", "swap", "1:5"],
    ]
    # Every row is aligned with the headings.
    assert {line.find(word) for line, word in zip(lines[1:3], ("file", "file"), strict=True)} == {
        lines[0].find("STATE")
    }


def test_a_page_without_a_mapcount_ends_where_the_others_do() -> None:
    pages = by_hand.pages([(*row[:6], 300) for row in by_hand.ROWS])
    out = io.StringIO()
    view("text", "pages")([pages], by_hand.walk([]), out, columns=("mapcount",))
    assert {len(line) for line in out.getvalue().splitlines()} == {16 + 2 + 5}


def test_the_ledger_names_each_cause_and_what_it_means() -> None:
    lines = written.write("text", "explain").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("status VmRSS"))
    assert lines[at].split() == ["status", "VmRSS", "=", "rss", "2072", "2072", "0"]
    at = next(i for i, line in enumerate(lines) if line.startswith("smaps_rollup Pss"))
    assert lines[at + 1].split() == ["pss_truncation", "(exact)", "0.333"]
    assert any(line.startswith("pss_truncation: ") for line in lines)


def test_what_present_has_beyond_rss_is_a_line_of_its_own() -> None:
    for screen in ("show", "explain"):
        assert "\npresent = rss + 4: zero_page 4\n" in written.write("text", screen)
    assert "\nzero_page: " in written.write("text", "explain")


def test_an_amount_is_not_broken_between_its_digits(terminal: Terminal) -> None:
    text.say("8 255 of 22 516 KiB " * 20, terminal)
    for line in terminal.getvalue().splitlines():
        assert re.fullmatch(r"(  )?(8 255|of|22 516 KiB)( (8 255|of|22 516 KiB))*", line)


def test_a_number_without_one_of_ours_has_no_line_in_the_ledger() -> None:
    screen = written.write("text", "explain", frames=False)
    assert "smaps Pss = pss" not in screen
    flat = " ".join(screen.split())
    assert "not compared, our number is withheld: smaps Pss 2062, smaps Private_*" in flat


def test_a_total_from_the_kernel_is_marked() -> None:
    table, lines, groups = written.arguments("show", frames=False)
    told = filled(table, by_hand.ROLLUP)
    for name, shown in (("show", (told, lines, groups)), ("maps", (told, [0, 1, 2, 3]))):
        out = io.StringIO()
        view("text", name)(*shown, out)
        screen = out.getvalue()
        assert "2062*" in screen
        assert "* the kernel's own figure from smaps_rollup" in screen


def test_withheld_amounts_are_shown_with_the_reason() -> None:
    screen = written.write("text", "show", frames=False)
    assert "partial: pss: frames are hidden run as root" in screen
    assert re.search(r"pss +n/a", screen)


def test_the_width_is_the_terminals_or_that_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width(io.StringIO()) is None
    monkeypatch.setenv("COLUMNS", "132")
    assert width(io.StringIO()) == 132
    monkeypatch.setenv("COLUMNS", "nonsense")
    assert width(io.StringIO()) is None


def test_an_ordinary_user_is_advised_to_look_at_a_process_of_their_own(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    rows = [Process(7, "large", "", 0, 9 << 20), Process(8, "small", "", 1000, 1 << 20)]
    machine.processes(rows, "Linux", terminal)
    assert "  pagewalk 8 " in terminal.getvalue() and "  pagewalk 7 " not in terminal.getvalue()


@pytest.mark.parametrize(("process", "called"), [
    (Process(7, "python3", "/usr/bin/python3", 0, 1, "/srv/svc.py"), "python3 (svc.py)"),
    (Process(7, "svc.py", "/usr/bin/python3", 0, 1, "/srv/svc.py"), "svc.py (python3)"),
    (Process(7, "sshd", "/usr/sbin/sshd", 0, 1), "sshd"),
])
def test_processes_of_one_name_are_told_apart(process: Process, called: str) -> None:
    out = io.StringIO()
    machine.processes([process], "Linux", out)
    assert called in [line.split(None, 2)[-1] for line in out.getvalue().splitlines() if line]


@pytest.mark.parametrize("room", range(70, 100))
def test_the_count_of_vmas_is_never_shortened(
    room: int, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    assert "total of 4 VMAs" in written.write("text", "maps", terminal)


def test_the_reason_for_a_withheld_total_is_shown_below_maps() -> None:
    table = by_hand.table()
    table = replace(table, totals={**table.totals, "freed": None})
    table.outcome.withheld.append(Withheld("freed", "nobody tells", partial=False))
    out = io.StringIO()
    text.maps(table, [0, 1, 2, 3], out, ("rss", "freed"))
    assert "n/a: freed: nobody tells" in out.getvalue()


def test_processes_that_are_not_shown_are_counted() -> None:
    rows = [Process(pid, "name", "", 1 << 20, 0) for pid in range(1, 6)]
    for count, said in ((5, None), (18, "13 more: --limit 18 shows all"), (None, None)):
        out = io.StringIO()
        machine.processes(rows, "Linux", out, count=count)
        lines = out.getvalue().splitlines()
        assert [line for line in lines if "more: " in line] == [said] * (said is not None)
    with_all = lines[-1]
    assert with_all.startswith("5 processes; ")
