"""Each glibc that Debian has, unpacked, and a program that runs with all of them.

The packages come from this machine's own mirror and stay in vmtest's cache.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmtest.fetch import cache_dir, write_apt_config

from tests.targets.answering import Answering, answering

HERE = Path(__file__).parent
# Of the oldest supported release to the one in preparation: 2.31, 2.36, 2.41 and 2.43 or later.
SUITES = ("bullseye", "bookworm", "trixie", "forky")
# A program that is linked with the oldest runs with all of them.
OLDEST = SUITES[0]
LIBRARIES = Path("lib/x86_64-linux-gnu")
LOADER = "ld-linux-x86-64.so.2"


@functools.cache
def unpacked(suite: str) -> Path:
    """Return the folder with the glibc of ``suite``, fetched if it is not there yet."""
    development = ("libc6-dev", "linux-libc-dev") if suite == OLDEST else ()
    return fetched("glibc", suite, "libc6", *development)


@functools.cache
def cplusplus(suite: str) -> Path:
    """Return the folder with the C++ library of ``suite``, fetched if it is not there yet."""
    development = ("libstdc++-10-dev",) if suite == OLDEST else ()
    return fetched("libstdc++", suite, "libstdc++6", "libgcc-s1", *development)


def fetched(name: str, suite: str, *packages: str) -> Path:
    """Return the folder ``name`` with ``packages`` of ``suite``, fetched if it is not there yet."""
    root = cache_dir() / name / suite
    if root.exists():
        return root
    apt = cache_dir() / f"{name}-apt" / suite
    shutil.rmtree(apt, ignore_errors=True)
    config = str(write_apt_config(apt, suite))
    run("apt-get", "-c", config, "-q", "update", cwd=apt)
    run("apt-get", "-c", config, "-q", "download", *packages, cwd=apt)
    for package in sorted(apt.glob("*.deb")):
        run("dpkg", "-x", str(package), "root", cwd=apt)
    root.parent.mkdir(exist_ok=True)
    (apt / "root").rename(root)  # whole, or not there
    return root


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def libraries(suite: str) -> Path:
    """Return the folder of the libraries of ``suite``; later ones have merged /lib into /usr."""
    root = unpacked(suite)
    return next(path for path in (root / LIBRARIES, root / "usr" / LIBRARIES)
                if (path / LOADER).exists())


@functools.cache
def containers() -> Path:
    """Return tests/targets/malloc/containers.cc compiled, linked with the oldest C++ library."""
    root = cplusplus(OLDEST)
    headers = root / "usr" / "include"
    return compiled(
        "containers.cc", "-nostdinc++", "-isystem", str(headers / "c++" / "10"),
        "-isystem", str(headers / "x86_64-linux-gnu" / "c++" / "10"),
        besides=(root / "usr" / LIBRARIES / "libstdc++.so.6", root / LIBRARIES / "libgcc_s.so.1"),
    )


@functools.cache
def allocate() -> Path:
    """Return tests/targets/malloc/allocate.c compiled, linked with the oldest glibc."""
    return compiled("allocate.c")


@functools.cache
def library() -> Path:
    """Return allocate.c compiled as a library for a program of this machine, which calls serve."""
    built = cache_dir() / "glibc" / "allocate.so"
    cache_dir().joinpath("glibc").mkdir(parents=True, exist_ok=True)
    run("cc", "-O1", "-shared", "-fPIC", "-o", str(built), str(HERE / "malloc" / "allocate.c"),
        cwd=HERE)
    return built


def compiled(source: str, *options: str, besides: tuple[Path, ...] = ()) -> Path:
    root, theirs = unpacked(OLDEST), libraries(OLDEST)
    program = cache_dir() / "glibc" / source.partition(".")[0]
    built = program.with_suffix(f".{os.getpid()}")
    # Links of the package lead to the machine's own libraries.
    (root / "lib64" / LOADER).unlink(missing_ok=True)
    (root / "lib64" / LOADER).symlink_to(f"../{LIBRARIES}/ld-2.31.so")
    development = str(root / "usr" / LIBRARIES)
    run("cc", f"--sysroot={root}", "-B", development, "-L", development, "-O1", "-Wall", "-Wextra",
        "-Wno-deprecated-declarations", *options, "-o", str(built), str(HERE / "malloc" / source),
        *map(str, besides), str(theirs / "libpthread.so.0"), str(theirs / "libdl.so.2"), cwd=root)
    built.rename(program)
    return program


def loading(suite: str) -> list[str]:
    """Return the words in front of a program that is to run with the libraries of ``suite``."""
    theirs, more = libraries(suite), cplusplus(suite)
    path = [theirs, more / LIBRARIES, more / "usr" / LIBRARIES]
    return [str(theirs / LOADER), "--library-path", ":".join(map(str, path))]


@contextmanager
def allocating(
    suite: str, pattern: str, *more: str, **variables: str
) -> Iterator[Answering]:
    """Run allocate.c with the glibc of ``suite`` until the block ends; yield once it has done.

    ``pattern`` "containers" stands for containers.cc; ``more`` are its other words.
    """
    program = [containers()] if pattern == "containers" else [allocate(), pattern, *more]
    with answering([*loading(suite), *program], **variables) as (found, _):
        yield found
