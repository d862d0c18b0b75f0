"""What malloc holds in programs of others, against what malloc_trim(0) really gives back there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from experiments.targets.servers import postgresql

from tests.kernel_says import read_smaps
from tests.live.command import PATIENCE, pagewalk
from tests.live.test_heap import SAME, anonymous
from tests.live.test_heap_hostile import compiled, running
from tests.targets.answering import answering
from tests.targets.catalogue import PARK
from tests.targets.glibcs import LIBRARIES, fetched, library

pytestmark = pytest.mark.live

HEAP_MAX = 64 << 20
TRIES = 3


def in_arenas(pid: int) -> int:
    """Return the anonymous bytes in RAM of the heap and of what starts as a thread's arena does."""
    return sum(
        vma.fields["Anonymous"] for vma in read_smaps(pid)
        if vma.name == "[heap]" or (not vma.name and vma.start % HEAP_MAX == 0)
    ) << 10


def trim(pid: int) -> None:
    """Make another program call malloc_trim(0)."""
    done = subprocess.run(
        ["gdb", "-nx", "-p", str(pid), "--batch", "-ex", "call (int)malloc_trim(0)"],
        check=True, capture_output=True, text=True, timeout=PATIENCE,
    )
    assert "$1 = " in done.stdout, done.stderr


# The package, and the archive in it, of each allocator that Debian has as one.
ARCHIVES = {
    "jemalloc": ("libjemalloc-dev", "libjemalloc.a"),
    "tcmalloc": ("libgoogle-perftools-dev", "libtcmalloc_minimal.a"),
}


@pytest.mark.parametrize("allocator", ARCHIVES)
@pytest.mark.parametrize("stripped", [(), ("-s",)])
def test_an_allocator_linked_into_a_program_is_named(
    allocator: str, stripped: tuple[str, ...]
) -> None:
    """Beside jemalloc glibc's own malloc is used a little, as libc itself does."""
    text = """
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        extern void *__libc_malloc(size_t);
        int main(void)
        {
            for (int i = 0; i < 64; i++)
                memset(malloc(1 << 20), 1, 1 << 20);
            memset(__libc_malloc(1000), 1, 1000);
            return write(1, "\\n", 1) != 1 || pause();
        }
    """
    package, archive = ARCHIVES[allocator]
    path = fetched(allocator, "bookworm", package) / "usr" / LIBRARIES / archive
    options = ("-w", "-x", "none", str(path), "-lstdc++", "-lm", "-lpthread", "-ldl", *stripped)
    with compiled(text, *options) as program, running(program) as process:
        found = pagewalk("heap", process.pid, "--format", "json").json
        screen = " ".join(pagewalk("heap", process.pid).out.split())
    assert found["others"] == [allocator]
    assert found["anonymous"] - found["explained"] >= 64 << 20
    if allocator == "jemalloc":
        assert found["allocator"] == "glibc"
        assert "are not malloc's: jemalloc is in the program too, and is not read." in screen
    else:  # it takes the place of __libc_malloc too
        assert found["allocator"] == allocator and found["exact"] is False
        assert f"is not known: {allocator} is not read." in screen


def test_python_by_malloc_itself() -> None:
    """Python allocates for every call: what answers is a loop in C that it never leaves."""
    program = f"""if True:
        import ctypes
        answers = ctypes.CDLL({str(library())!r})
        pairs = [(str(i), [i] * (i % 90)) for i in range(100_000)]
        kept = pairs[::97]
        del pairs
        answers.serve()
    """
    words = [sys.executable, "-c", program]
    with answering(words, PYTHONMALLOC="malloc") as (python, said):
        found = pagewalk("heap", python.pid, "--format", "json").json
        before = anonymous(python.pid)
        python.ask("trim")
        given_back = before - anonymous(python.pid)
    assert found["exact"] is True, found["why"]
    assert {name: found[name] for name in SAME} == {name: said[name] for name in SAME}
    assert found["trim"] == given_back > 1 << 20


def test_a_postgresql_backend() -> None:
    with postgresql() as family:
        pid = next(pid for title, pid in family() if title == "client 1")
        found = pagewalk("heap", pid, "--format", "json").json
        before = in_arenas(pid)
        trim(pid)
        given_back = before - in_arenas(pid)
    assert found["exact"] is True, found["why"]
    assert found["trim"] == given_back > 0


@contextmanager
def java() -> Iterator[int]:
    with subprocess.Popen(
        ["java", "-Xmx64m", "-XX:+UseSerialGC", PARK],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            assert b"ready" in process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def test_a_java_virtual_machine() -> None:
    """Its own threads run now and then: another machine is tried if they allocated in between."""
    tried: list[tuple[Any, int]] = []
    while len(tried) < TRIES:
        with java() as pid:
            found = pagewalk("heap", pid, "--freeze", "--longest-stop", "10000", "--format", "json"
                             ).json
            before = in_arenas(pid)
            trim(pid)
            tried.append((found["trim"], before - in_arenas(pid)))
        assert found["exact"] is True and len(found["arenas"]) > 5
        if tried[-1][0] == tried[-1][1] > 0:
            return
    raise AssertionError(f"predicted and given back: {tried}")
