"""Processes that lie about their memory, change it, end, or are large: no fault, none stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pagewalk.heap.heap import Heap
from pagewalk.heap.read import read_heap
from pagewalk.proc.target import open_target
from pagewalk.sources import close, open_source
from tests.kernel_says import read_smaps
from tests.live.command import begin, end, one_sentence, pagewalk
from tests.live.test_heap import SAME
from tests.machine import prepared
from tests.targets import asleep
from tests.targets.answering import Answering
from tests.targets.glibcs import allocating

pytestmark = pytest.mark.live

MALLOC = Path(__file__).parents[1] / "targets" / "malloc"
SEEDS = range(100)
# Seconds for a seed, on a busy machine; the slowest of several thousand took 0.3 on an idle one.
PATIENCE_S = 20
KINDS = ("obtained", "in_use", "free", "trim", "thread_top", "scattered")


def read(pid: int) -> Heap:
    source = open_source("procfs", open_target(pid))
    try:
        return read_heap(source)
    finally:
        close(source)


@contextmanager
def compiled(text: str, *options: str) -> Iterator[Path]:
    """Compile a C program."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        subprocess.run(["cc", "-O0", "-x", "c", "-", *options, "-o", program], check=True,
                       input=text.encode())
        yield program


@contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that writes a line when it is ready."""
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def test_forged_records_neither_fail_nor_last() -> None:
    with compiled((MALLOC / "forge.c").read_text(), "-w", "-z", "now") as program, \
         subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        recognised = 0
        try:
            for seed in SEEDS:
                process.stdin.write(b"%d\n" % seed)
                process.stdin.flush()
                assert process.stdout.readline() == b"done\n"
                signal.alarm(PATIENCE_S)  # ends the test run if it hangs
                heap = read(process.pid)
                signal.alarm(0)
                recognised += heap.allocator == "glibc"
                amounts = [heap.total(kind) for kind in KINDS]
                assert all(amount is None or 0 <= amount < 1 << 63 for amount in amounts), seed
                assert 0 <= heap.explained <= heap.anonymous, seed
        finally:
            process.kill()
    # Half of them, by chance, leave malloc_state alone (forge.c): if nearly all were refused there,
    # nothing of what follows would have been tried.
    assert recognised > len(SEEDS) / 4


def test_a_bss_larger_than_the_machine_is_not_read_whole() -> None:
    text = """
        #include <stdlib.h>
        #include <unistd.h>
        static char large[4ul << 30];
        int main(void)
        {
            large[2ul << 30] = *(char *)malloc(100000) + 1;
            return write(1, "\\n", 1) != 1 || pause();
        }
    """
    with compiled(text, "-w", "-mcmodel=medium") as program, running(program) as process:
        heap = read(process.pid)
    assert heap.exact and heap.allocator == "glibc", heap.why


def test_a_program_without_libraries() -> None:
    text = (MALLOC / "allocate.c").read_text()
    with compiled(text, "-w", "-static") as program, running(program, "threads") as process:
        said = Answering(process).ask("info")
        found = pagewalk("heap", process.pid, "--format", "json").json
    assert found["exact"] is True, found["why"]
    assert {name: found[name] for name in SAME} == {name: said[name] for name in SAME}


def test_memory_that_comes_and_goes_reads_as_zeros() -> None:
    text = """
        #include <malloc.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        int main(void)
        {
            mallopt(M_MMAP_THRESHOLD, 1 << 30);
            mallopt(M_TRIM_THRESHOLD, 4096);
            if (write(1, "\\n", 1) != 1)
                return 1;
            for (;;) {
                char *block = malloc(64 << 20);
                memset(block, 1, 64 << 20);
                free(block);
            }
        }
    """
    with compiled(text, "-w") as program, running(program) as process:
        for _ in range(8):
            ran = pagewalk("heap", process.pid, "--format", "json")
            assert ran.code in (0, 3), ran.err


def test_a_process_that_ends_forks_or_executes_is_one_sentence_or_an_answer() -> None:
    words = ("exec sleep 9", "exit", "kill -9 $$", "sleep 0 & sleep 9")
    for number, word in enumerate(words * 5):
        delay = 0.02 * number
        process = subprocess.Popen(["sh", "-c", f"sleep {0.2 + delay}; {word}"],
                                   start_new_session=True)
        timer = threading.Thread(target=process.wait)
        timer.start()
        time.sleep(0.1)
        ran = pagewalk("heap", process.pid, *(["--freeze"] if number % 2 else []))
        if ran.code not in (0, 3):
            assert ran.code in (1, 5) and one_sentence(ran), ran
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        timer.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_the_process_goes_on(number: signal.Signals) -> None:
    with allocating("bookworm", "many_heaps") as program:
        for delay in (0.2, 0.4, 0.6, 0.8, 1.0):
            process = begin("heap", program.pid, "--freeze")
            time.sleep(delay)
            process.send_signal(number)
            end(process)
            deadline = time.monotonic() + 10
            while state_of(program.pid) in "Tt" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert state_of(program.pid) not in "Tt"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_32_bit_program_is_not_read() -> None:
    text = """
        void _start(void) {
            int got;
            __asm__ volatile("int $0x80" : "=a"(got) : "a"(4), "b"(1), "c"("\\n"), "d"(1));
            for (;;)
                __asm__ volatile("int $0x80" : "=a"(got) : "a"(29) : "memory");
        }
    """
    with compiled(text, "-m32", "-nostdlib", "-static", "-fno-pic", "-no-pie") as program, \
         running(program) as process:
        ran = pagewalk("heap", process.pid, "--format", "json")
    assert ran.code == 3 and ran.json["allocator"] is None
    assert "32-bit" in ran.json["why"]


def test_in_another_pid_namespace_and_stopped_by_others() -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "60"]) as outer:
        try:
            inner = the_child(outer.pid)
            asleep(inner, "sleep")
            os.kill(inner, signal.SIGSTOP)
            ran = pagewalk("heap", inner, "--freeze", "--format", "json")
            assert ran.code == 0 and ran.json["exact"] is True and ran.json["stopped_ns"] == 0
            assert state_of(inner) == "T"
            os.kill(inner, signal.SIGKILL)
        finally:
            outer.kill()


def the_child(pid: int) -> int:
    """Return the first child of ``pid``, once it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + PATIENCE_S
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(found[0])


def test_many_threads_and_arenas() -> None:
    text = """
        #include <malloc.h>
        #include <pthread.h>
        #include <stdlib.h>
        #include <unistd.h>
        static _Atomic int done;
        static void *work(void *unused)
        {
            void *block = malloc(300);
            malloc(100);
            free(block);
            done++;
            for (;;)
                pause();
            return unused;
        }
        int main(int count, char **words)
        {
            pthread_attr_t small;
            pthread_attr_init(&small);
            pthread_attr_setstacksize(&small, 32768);
            mallopt(M_ARENA_MAX, atoi(words[2]));
            for (int i = 0; i < atoi(words[1]); i++) {
                pthread_t thread;
                if (pthread_create(&thread, &small, work, NULL))
                    abort();
            }
            while (done < atoi(words[1]))
                usleep(1000);
            return write(1, "\\n", 1) != 1 || pause();
        }
    """
    with compiled(text, "-w", "-pthread") as program, running(program, 2500, 2000) as process:
        asleep(process.pid, "program")
        heap = read(process.pid)
    assert heap.exact, heap.why
    assert heap.stacks.live == 2500 and len(heap.arenas) == 2000
    # The block of 300 bytes of each thread is in its cache, in a chunk of 320.
    assert heap.tcache is not None and heap.tcache >= 2500 * 320


def test_what_is_in_swap_stays_there_and_is_said() -> None:
    text = """
        #include <stdint.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(void)
        {
            static char *blocks[20000];
            for (int i = 0; i < 20000; i++)
                blocks[i] = memset(malloc(700), 1, 700);
            for (int i = 0; i < 20000; i += 3)
                free(blocks[i]);
            madvise((void *)((uintptr_t)blocks[5000] & -4096), 4 << 20, 21 /* MADV_PAGEOUT */);
            return write(1, "\\n", 1) != 1 || pause();
        }
    """
    with prepared("zram"), compiled(text, "-w") as program, running(program) as process:
        before = swapped(process.pid)
        ran = pagewalk("heap", process.pid, "--format", "json")
        assert swapped(process.pid) == before > 1 << 20
    assert ran.code == 3 and ran.json["exact"] is False
    assert "in swap" in ran.json["why"]


def swapped(pid: int) -> int:
    return sum(vma.fields["Swap"] for vma in read_smaps(pid)) << 10
