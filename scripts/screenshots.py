"""Make the pictures of docs/screenshots: python -m scripts.screenshots [FOLDER].

Real commands run in a pseudo-terminal of 80 columns, on a Java and a Python service that this
starts; rich turns what they print into SVG, for light and for dark backgrounds. Needs root, Java,
and the extra `test`.
"""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from tests import recipes
from tests.documents import ROOT
from tests.machine import alone

FOLDER = ROOT / "docs/screenshots"
COLUMNS, ROWS = 80, 100
# What is photographed, by the name of the picture.
COMMANDS = {
    "show": ("orders",),
    "heap": ("heap", "nightly.py"),
    "maps": ("maps", "orders", "--sort", "rss", "--limit", "8"),
}
# Background, foreground, and the eight colours of a terminal: GitHub's own, light and dark.
THEMES = {
    "light": TerminalTheme((255, 255, 255), (31, 35, 40), [
        (36, 41, 47), (207, 34, 46), (17, 99, 41), (77, 45, 0),
        (9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129),
    ]),
    "dark": TerminalTheme((13, 17, 23), (230, 237, 243), [
        (110, 118, 129), (255, 123, 114), (63, 185, 80), (210, 153, 34),
        (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196),
    ]),
}
# Rich's own frame has a window's buttons, and loads a font from the network.
FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>TITLE</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, "DejaVu Sans Mono", monospace;
  line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>{lines}</defs>
<rect x="0.5" y="0.5" width="99.9%" height="99.9%" rx="6" fill="BACKGROUND" stroke="#8886"/>
<g transform="translate(9, 24)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@contextmanager
def services() -> Iterator[None]:
    """Run the two services until the block ends; no other run of this does meanwhile."""
    with alone(), tempfile.TemporaryDirectory() as folder, ExitStack() as both:
        subprocess.run(["javac", "-d", folder, ROOT / "scripts/Orders.java"], check=True)
        named = Path(folder, "orders")  # a process is called like the file that was started
        named.symlink_to(Path(shutil.which("java") or "").resolve())
        script = Path(folder, "nightly.py")  # no test has a process of that name
        script.symlink_to(recipes.PROGRAMS / "reports.py")
        for words in (f"{named} -Xmx512m -cp {folder} Orders",
                      f"/usr/bin/python3 {script}"):
            process = subprocess.Popen(words.split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            both.callback(process.communicate)  # closes its input, which ends it
            assert process.stdout is not None
            json.loads(process.stdout.readline())
        yield


def printed(words: tuple[str, ...]) -> str:
    """Return what pagewalk prints on a terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "pagewalk", *words])
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    said = b"".join(parts).decode().replace("\r\n", "\n")
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said


def picture(words: tuple[str, ...], said: str, theme: TerminalTheme) -> str:
    """Return the SVG of a command and what it printed."""
    command = " ".join(("pagewalk", *words))
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(said.rstrip()), soft_wrap=True)
    frame = FRAME.replace("TITLE", escape(command))
    frame = frame.replace("BACKGROUND", theme.background_color.hex)
    return console.export_svg(theme=theme, code_format=frame, unique_id="t")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with services():
        for name, words in COMMANDS.items():
            said = printed(words)
            for shade, theme in THEMES.items():
                (folder / f"{name}-{shade}.svg").write_text(picture(words, said, theme))


if __name__ == "__main__":
    main()
