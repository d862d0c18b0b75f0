"""The documentation and what is in it: code blocks, links, commands."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
# How wide a character is in the pictures of scripts/screenshots.py.
CELL = 12.2
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence ("python root"), and its text."""

    words: tuple[str, ...]
    text: str


def blocks(document: Path, language: str) -> list[Block]:
    """Return the fenced blocks of one language."""
    found = (Block(tuple(m["words"].split()), m["text"]) for m in FENCE.finditer(
        document.read_text()
    ))
    return [block for block in found if block.words[:1] == (language,)]


def prose(document: Path) -> str:
    """Return the document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def links(document: Path) -> list[str]:
    """Return the targets of all links within the project."""
    return [link for link in LINK.findall(prose(document)) if "://" not in link]


def anchors(document: Path) -> set[str]:
    """Return what a link may name after ``#``: the headings, as renderers usually spell them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words after ``pagewalk`` of every ``$ pagewalk ...`` line in a console block.

    Only the first command of a pipe counts.
    """
    for kind in ("console", "text"):
        for block in blocks(document, kind):
            for line in block.text.splitlines():
                if match := re.match(r"\$ (?:\./)?pagewalk ?(.*)", line):
                    words = shlex.split(match[1])
                    yield words[: words.index("|")] if "|" in words else words


def named(document: Path) -> Iterator[list[str]]:
    """Yield the words after ``pagewalk`` of every command that is named in the prose."""
    for line in re.findall(r"`pagewalk ([^`]+)`", prose(document)):
        words = shlex.split(line)
        yield words[: words.index(">>")] if ">>" in words else words


def pictures(document: Path) -> list[str]:
    """Return the files that a document shows as pictures, for light and for dark."""
    return re.findall(r'(?:src|srcset)="([^"]+)"', document.read_text())


def described(document: Path) -> list[tuple[str, str]]:
    """Return what a document says in place of each of its pictures, and the picture's file."""
    return re.findall(r'<img alt="([^"]+)" src="([^"]+)"', document.read_text())


def drawn(picture: Path) -> tuple[str, str]:
    """Return the title of one of our SVG pictures, and the lines of text in it."""
    svg = picture.read_text()
    rows: dict[float, str] = {}
    for attributes, text in re.findall(r"<text ([^>]*)>([^<]*)</text>", svg):
        at = {key: float(value) for key, value in re.findall(r'\b(x|y)="([\d.]+)"', attributes)}
        column = round(at["x"] / CELL)
        rows[at["y"]] = rows.get(at["y"], "").ljust(column) + html.unescape(text)
    lines = [rows[y].replace("\xa0", " ").rstrip() for y in sorted(rows)]
    return re.findall("<title>(.*)</title>", svg)[0], "\n".join(lines) + "\n"
