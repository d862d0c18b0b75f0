"""A process that maps a file with a hostile name: on a terminal, in pipes, files and any locale."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.command import one_sentence, pagewalk, pagewalk_here
from tests.render.written import seen

PAGEWALK = [sys.executable, "-m", "pagewalk"]
FAST = ["--quiet", "--source", "procfs"]
# 日本, a byte that is not UTF-8, line ends of some readers, and a terminal's control sequences.
NAME = "日本é".encode() + b'\xff\r\x0b\x1c\xc2\x85\xe2\x80\xa8\xe2\x80\xae\x1b[31m",x'
LOCALES = {
    "utf-8": {"LC_ALL": "C.UTF-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C"},
    "C as it was": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
COLOUR = re.compile(r"\x1b\[(0|1|2|31|32)m")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bytes]]:
    """Return a process's pid, and the path of the file with a hostile name that it maps."""
    path = os.fsencode(tmp_path_factory.mktemp("names")) + b"/" + NAME
    with open(path, "wb") as file:
        file.write(bytes(4096))
    code = ("import mmap, sys\n"
            "file = open(sys.argv[1], 'rb')\n"
            "held = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)\n"
            "print(held[0], flush=True)\nsys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"0\n"
        yield str(process.pid), path
        process.stdin.close()


def ran(words: list[str], locale: str, **options: int) -> subprocess.CompletedProcess[bytes]:
    unset = ("LC_ALL", "LANG", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([*PAGEWALK, *words, *FAST], env={**environ, **LOCALES[locale]},
                          stderr=subprocess.PIPE, timeout=240, check=False, **options)
    # For an ordinary user frames are withheld, which makes it partial.
    assert done.returncode in (0, 3) and done.stderr == b"", done.stderr
    return done


def piped(words: list[str], locale: str) -> bytes:
    found: bytes = ran(words, locale, stdout=subprocess.PIPE).stdout
    return found


@pytest.mark.parametrize("locale", ["ascii strict", "C as it was"])
@pytest.mark.parametrize("view", ["show", "maps"])
def test_text_can_be_written_in_any_locale(
    view: str, locale: str, target: tuple[str, bytes]
) -> None:
    assert b"\\x1b[31m" in piped([view, target[0]], locale) or view == "show"


def rows(raw: bytes) -> list[dict[str, str]]:
    text = raw.decode(errors="surrogateescape")
    assert {line.count("0x") for line in text.split("\n")[1:-1]} == {2}  # a row is a line
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("locale", ["utf-8", "C"])
def test_csv_writes_the_name_to_a_pipe_byte_by_byte(locale: str, target: tuple[str, bytes]) -> None:
    pid, path = target
    names = [row["name"].encode(errors="surrogateescape")
             for row in rows(piped(["maps", pid, "--format", "csv"], locale))]
    assert names.count(path) == 1


@pytest.mark.parametrize("locale", LOCALES)
def test_the_name_is_written_to_a_file_byte_by_byte_in_any_locale(
    locale: str, target: tuple[str, bytes], tmp_path: Path
) -> None:
    pid, path = target
    out = tmp_path / "maps.csv"
    piped(["maps", pid, "--format", "csv", "--output", str(out)], locale)
    names = [row["name"].encode(errors="surrogateescape") for row in rows(out.read_bytes())]
    assert names.count(path) == 1


@pytest.mark.parametrize("locale", LOCALES)
def test_json_keeps_the_name_byte_by_byte(locale: str, target: tuple[str, bytes]) -> None:
    pid, path = target
    document = json.loads(piped(["maps", pid, "--format", "json"], locale))
    names = [vma["name"].encode(errors="surrogateescape") for vma in document["vmas"]]
    assert names.count(path) == 1


def test_a_character_that_the_encoding_lacks_is_escaped(target: tuple[str, bytes]) -> None:
    found = piped(["maps", target[0], "--format", "csv"], "ascii")
    assert rb"/\u65e5\u672c\xe9" in found


@pytest.mark.parametrize("form", ["text", "json", "csv", "log"])
def test_nothing_that_reaches_a_terminal_can_drive_it(form: str, target: tuple[str, bytes]) -> None:
    ours, theirs = pty.openpty()
    environ = {"COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen([*PAGEWALK, "maps", target[0], "--format", form, *FAST],
                          stdout=theirs, env={**os.environ, **environ}) as process:
        os.close(theirs)
        raw = b"".join(read(ours))
    os.close(ours)
    assert process.returncode in (0, 3)
    text = raw.decode().replace("\r\n", "\n")
    assert seen(COLOUR.sub("", text) if form == "text" else text)
    assert form == "log" or r"\x1b[31m" in text or r"\u001b[31m" in text


def read(terminal: int) -> Iterator[bytes]:
    # A terminal whose other end is closed returns EIO once everything is read.
    try:
        while piece := os.read(terminal, 1 << 16):
            yield piece
    except OSError:
        return


def test_a_full_disk_is_told_with_the_name_of_the_file(
    target: tuple[str, bytes], tmp_path: Path
) -> None:
    """As one that ends at 100 bytes is; /dev/full is no regular file."""
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    path = tmp_path / "a"
    for name, limit in ((str(path), small), ("/dev/full", None)):
        # Python would cut the modules that it compiles at 100 bytes too, and keep them.
        ran = pagewalk("maps", target[0], "--format", "json", "-o", name, preexec_fn=limit,
                       env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        assert ran.code == 1
        assert one_sentence(ran).startswith(f"cannot read or write {name}: ")
    assert not list(tmp_path.iterdir())


def test_an_empty_name_is_one_sentence(target: tuple[str, bytes]) -> None:
    ran = pagewalk_here("maps", target[0], "-o", "")
    assert ran.code == 2 and one_sentence(ran).startswith("cannot write to '': ")
