"""What a newcomer reads first is true: commands, screens and links in the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from vmtest.rounds import load, with_table

from pagewalk.cli import COMMANDS, cli, usual
from tests.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    commands,
    described,
    drawn,
    links,
    named,
    pictures,
    prose,
)

README = ROOT / "README.md"
SCREENSHOTS = ROOT / "docs/screenshots"
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def programs() -> list[Path]:
    """Return the files that the README's set-up block runs."""
    lines = "".join(block.text for block in blocks(README, "sh")).splitlines()
    return [ROOT / line.split()[0] for line in lines if line.startswith("./")]


def test_two_commands_set_up_everything() -> None:
    assert [path.name for path in programs()] == ["pagewalk", "test"]


@pytest.mark.parametrize("path", [*programs(), *(ROOT / "scripts").iterdir(), ROOT / ".ci/run"])
def test_a_script_is_valid_and_executable(path: Path) -> None:
    if path.read_bytes().startswith(b"#!/bin/bash\n"):
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", path], check=True)
    else:
        assert path.suffix in (".py", ".txt", ".java")


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_commands_shown_exist(document: Path) -> None:
    # Elsewhere the prose has commands of other versions, and parts of commands.
    whole = document.parent.name == "recipes" or document == README
    for words in [*commands(document), *(named(document) if whole else ())]:
        name, command, rest = cli.resolve_command(click.Context(cli), usual(words))
        assert command is not None
        command.make_context(name, rest)  # raises for an option or a value that does not exist


@pytest.mark.live
def test_the_screen_shown_is_what_the_command_prints() -> None:
    _, screen = drawn(SCREENSHOTS / "show-light.svg")
    now = subprocess.run(
        [sys.executable, "-m", "pagewalk", str(os.getpid())],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"},
    ).stdout
    assert labels(screen) == labels(now)


def labels(screen: str) -> tuple[list[str], list[str]]:
    """Return the names of the totals, and what the short ledger compares."""
    amount = r"[\d .KMGTn/a]+"
    totals = re.findall(rf"^  ([a-z]+(?: [a-z]+)*) {amount}   ([a-z]+) {amount}$", screen, re.M)
    ledger = re.findall(r"^(\w+ \w+ = \w+) ", screen, re.M)
    assert len(totals) == 9 and len(ledger) >= 2
    return [name for row in totals for name in row], ledger


@pytest.mark.parametrize("document", sorted((ROOT / "docs/recipes").iterdir()))
def test_commands_fit_a_terminal(document: Path) -> None:
    lines = [line for block in blocks(document, "sh") for line in block.text.splitlines()]
    assert [line for line in lines if len(line) > 90] == []


def test_pictures_are_there_for_light_and_for_dark() -> None:
    shown = {(page.parent / name).resolve() for page in DOCUMENTS for name in pictures(page)}
    assert shown == set(SCREENSHOTS.iterdir())
    for name in {path.stem.rpartition("-")[0] for path in shown}:
        light, dark = (drawn(SCREENSHOTS / f"{name}-{shade}.svg") for shade in ("light", "dark"))
        assert light == dark and light[1].startswith(f"$ {light[0]}\n")


@pytest.mark.parametrize("picture", sorted(SCREENSHOTS.glob("*-light.svg")))
def test_a_picture_shows_a_command_that_exists(picture: Path) -> None:
    _, *words = drawn(picture)[0].split()
    name, command, rest = cli.resolve_command(click.Context(cli), words)
    assert command is not None
    command.make_context(name, rest)


def test_the_amounts_named_beside_the_picture_are_in_it() -> None:
    text = prose(README).partition("## What you see")[2].partition("<picture>")[0]
    assert len(amounts(text)) > 3
    assert missing(text, SCREENSHOTS / "show-light.svg") == []


def test_the_amounts_told_in_place_of_a_picture_are_in_it() -> None:
    told = [(words, page.parent / name) for page in DOCUMENTS for words, name in described(page)]
    assert any(amounts(words) for words, _ in told)
    assert [missing(words, picture) for words, picture in told] == [[]] * len(told)


def amounts(text: str) -> list[str]:
    return re.findall(r"[\d.]+[KMG]\b", text)


def missing(text: str, picture: Path) -> list[str]:
    """Return the amounts in ``text`` that a picture does not show."""
    shown = drawn(picture)[1]
    return [one for one in amounts(text) if not re.search(rf"(?<![\d.]){one}\b", shown)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_index(name: str) -> None:
    assert f"(commands/{name}.md)" in prose(ROOT / "docs/index.md")


def test_the_manual_page_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/man.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs/man/pagewalk.1").read_text() == made, "run scripts/man.py"


def test_the_kernels_on_the_support_page_are_what_the_record_says_of_those_tested() -> None:
    page = (ROOT / "docs/support.md").read_text()
    assert page == with_table(page, load()), "run python -m vmtest support"
