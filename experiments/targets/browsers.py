"""Firefox and Chromium, headless, each with a new profile and a page of one line."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from experiments.family import Family
from experiments.programs import folder, running, wait

PAGE = "<!doctype html><title>hello</title><p>Hello, world!</p>\n"
# Nothing that would wake it up later, or use the network.
FIREFOX_PREFERENCES: dict[str, bool | str] = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-breakpad", "--disable-crash-reporter", "--remote-debugging-port=0",
)


@contextmanager
def firefox() -> Iterator[Family]:
    """Run Firefox until the block ends."""
    with page() as url, tempfile.TemporaryDirectory(dir=folder()) as profile:
        lines = [f'user_pref("{key}", {literal(value)});' for key, value in
                 FIREFOX_PREFERENCES.items()]
        Path(profile, "user.js").write_text("\n".join(lines))
        command = ["firefox-esr", "--headless", "--no-remote", "--profile", profile, url]
        with browser(command, "tab") as pid:
            yield lambda: family(pid, firefox_role)


@contextmanager
def chromium() -> Iterator[Family]:
    """Run Chromium until the block ends."""
    with page() as url, tempfile.TemporaryDirectory(dir=folder()) as profile:
        command = ["chromium", *CHROMIUM_FLAGS, f"--user-data-dir={profile}", url]
        with browser(command, "--type=renderer") as pid:
            yield lambda: family(pid, chromium_role)


@contextmanager
def page() -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", dir=folder(), suffix=".html") as file:
        file.write(PAGE)
        file.flush()
        yield f"file://{file.name}"


@contextmanager
def browser(command: list[str], word: str) -> Iterator[int]:
    # Ready when it has a process that shows pages: one with `word` in its command line.
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running(command, stdin=subprocess.DEVNULL, **silent) as process:
        main = psutil.Process(process.pid)
        wait(lambda: any(word in words(child) for child in main.children(recursive=True)),
             f"{command[0]} to show its page", 120.0)
        yield process.pid


def words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def literal(value: bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def family(pid: int, role: Callable[[list[str]], str]) -> list[tuple[str, int]]:
    """Return (role, pid) of a browser and its descendants; equal roles are numbered."""
    rows = [("browser", pid)]
    count: Counter[str] = Counter()
    for child in psutil.Process(pid).children(recursive=True):
        if command := words(child):
            name = role(command)
            count[name] += 1
            rows.append((f"{name} {count[name]}" if count[name] > 1 else name, child.pid))
    return rows


def firefox_role(command: list[str]) -> str:
    # "-contentproc ... tab": the kind is the last word.
    return command[-1] if "-contentproc" in command else Path(command[0]).name


def chromium_role(command: list[str]) -> str:
    kinds = dict(w.removeprefix("--").split("=", 1) for w in command if w.startswith("--")
                 and "=" in w)
    kind = kinds.get("type", Path(command[0]).name)
    return kinds.get("utility-sub-type", kind).rpartition(".")[2]
