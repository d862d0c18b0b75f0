"""Two versions of Go that Debian has, unpacked, and a program that each compiles.

PAGEWALK_GO in the environment names more of them: folders with bin/go, separated by colons.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmtest.fetch import cache_dir

from tests.machine import IN_GUEST
from tests.targets.answering import Answering, answering
from tests.targets.glibcs import HERE, fetched

DEBIAN = {"1.19": "bookworm", "1.24": "trixie"}
MORE = [path for path in os.environ.get("PAGEWALK_GO", "").split(":") if path]
GOS = (*DEBIAN, *MORE)
PATTERNS = ("nothing", "small", "large", "huge", "stacks", "released")


def root(go: str) -> Path:
    """Return the folder of one of GOS, fetched if it is not there yet."""
    if go not in DEBIAN:
        return Path(go)
    unpacked = fetched("go", DEBIAN[go], f"golang-{go}-go", f"golang-{go}-src")
    return unpacked / "usr" / "lib" / f"go-{go}"


@functools.cache
def compiled(go: str, *options: str) -> Path:
    """Return tests/targets/go/holds.go compiled by one of GOS; with withc.go if options say so."""
    sources = ["holds.go", *(option for option in options if option == "withc.go")]
    options = tuple(option for option in options if option not in sources)
    folder = cache_dir() / "go"
    named = ["-".join(sources), go, *options]
    program = folder / "-".join(re.sub(r"[^\w.]+", "_", word) for word in named)
    if IN_GUEST and program.exists():
        return program  # it would take minutes to find that it is up to date
    built = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [root(go) / "bin" / "go", "build", *options, "-o", built, *sources],
        check=False, capture_output=True, text=True, cwd=HERE / "go",
        env={**os.environ, "GOROOT": str(root(go)), "GOCACHE": str(folder / "cache"),
             "GOTOOLCHAIN": "local", "GOFLAGS": "", "GO111MODULE": "off",
             "CGO_ENABLED": str(len(sources) - 1)},
    )
    if done.returncode:
        raise RuntimeError(f"cannot compile holds.go with {go}: {done.stderr.strip()}")
    built.rename(program)
    return program


@contextmanager
def holding(go: str, pattern: str, *options: str) -> Iterator[Answering]:
    """Run holds.go, compiled by one of GOS, until the block ends; yield once it is ready."""
    with answering([compiled(go, *options), pattern]) as (found, _):
        yield found
