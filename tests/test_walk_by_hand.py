"""Every command in docs/walk-by-hand.md runs, in order, and prints what the page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import prepared

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
MARK = "-- the next command --"
# Whatever happens, no process or swap of ours is left behind.
TRAP = """
finish() {
    [ -z "$pid" ] || kill "$pid" || true
    [ -z "$number" ] || ! grep -q "zram$number" /proc/swaps || swapoff "/dev/zram$number"
    [ -z "$number" ] || [ ! -e "/dev/zram$number" ] ||
        echo "$number" > /sys/class/zram-control/hot_remove
} 2>/dev/null
trap 'finish' EXIT
"""
# What varies from run to run: where the kernel puts things in RAM and on swap, and which of these
# flags a page has at the moment.
CHANCE = (
    (re.compile(r"^process \d+ .*$"), "process"),
    (re.compile(r"\b(accessed|dirty|idle|young|lru|referenced|active|owner_2|uptodate) ?"), ""),
    (re.compile(r"type \d+, offset \d+|slot \d+, byte 0x[0-9a-f]+|device \d+ \(/dev/\w+\)"), "?"),
    (re.compile(r"(?<=physical )0x[0-9a-f]+"), "0x"),
    # pagemap: the kind of page, without its frame or slot.
    (re.compile(r"((?:0x| )[048][01]00)[0-9a-f]{12}\b"), r"\1"),
)
PHYSICAL = re.compile(r"0x[0-9a-f]+")
SHOWS_ONLY_RAM = ("PGD ", "PUD ", "PMD ", "PTE ", "  ", "PAGE ", "FRAME ")


def blocks() -> list[tuple[str, str]]:
    """Return each block of commands, and the output that the page shows: "" if none."""
    return BLOCK.findall((DOCS / "walk-by-hand.md").read_text())


def settled(line: str) -> str:
    """Return a line of output without the parts that may differ next time."""
    for pattern, text in CHANCE:
        line = pattern.sub(text, line)
    if line.startswith(SHOWS_ONLY_RAM):
        line = PHYSICAL.sub("0x", line)
    return " ".join(line.split())


def run_page(folder: Path) -> list[str]:
    """Run all commands of the page in one shell, and return each block's output."""
    shutil.copy(DOCS / "lesson.c", folder)
    script = "".join(f"{commands}\necho '{MARK}'\n" for commands, _ in blocks())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-e", "-c", TRAP + script], check=False, capture_output=True, text=True,
        cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "100"}, timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(MARK + "\n")[:-1]


def test_the_page_is_true(tmp_path: Path) -> None:
    with prepared("thp"):
        written = run_page(tmp_path)
    assert len(written) == len(blocks()) > 10
    for (commands, shown), output in zip(blocks(), written, strict=True):
        expected = [settled(line) for line in shown.splitlines()]
        found = [settled(line) for line in output.splitlines()]
        assert expected == found[: len(expected)], commands
        # The page shortens a long output only after its first two lines.
        assert len(expected) == len(found) or len(expected) == 2, commands


def test_the_page_shows_the_output_of_every_command_that_reads() -> None:
    looks = [shown for commands, shown in blocks() if "vtop" in commands]
    assert len(looks) >= 6
    assert all(looks)
