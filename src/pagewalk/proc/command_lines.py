"""Read command lines, and wait for none: /proc/PID/cmdline is memory of the process itself.

The kernel takes the process's mmap_lock to read it (access_remote_vm in mm/memory.c), and waits for
as long as somebody else holds that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pagewalk.proc.files import decode_name, read_bytes

WORDS = 64  # of a command line, in which the script of an interpreter is looked for
# Seconds that nothing is read before a process is left out: the first one, and those after it.
PATIENCE, HURRY = 1.0, 0.1

Words = tuple[str, ...]
NO_WORDS: Words = ("",)


def read_command_lines(folders: Sequence[str]) -> Iterator[Words | None]:
    """Yield the first WORDS words of each process of ``folders`` (``/proc/PID``), in order.

    None of one that has ended. One that does not answer has no words, as has a kernel thread: the
    thread that waits for it ends with the process, or with us.
    """
    done, patience = 0, PATIENCE
    while done < len(folders):
        read: list[Words | None] = []
        over = threading.Event()
        reader = threading.Thread(target=read_all, args=(folders[done:], read, over), daemon=True)
        reader.start()
        told = -1
        while reader.is_alive() and told < len(read):
            told = len(read)
            reader.join(patience)
        over.set()
        answered = read[:]
        yield from answered
        done += len(answered)
        if done < len(folders):
            yield NO_WORDS
            done, patience = done + 1, HURRY


def read_all(folders: Sequence[str], read: list[Words | None], over: threading.Event) -> None:
    """Append the words of each of ``folders`` to ``read``, until it is ``over``."""
    for folder in folders:
        if over.is_set():
            return
        try:
            line = read_bytes(f"{folder}/cmdline")
        except OSError:
            read.append(None)
        else:
            read.append(tuple(map(decode_name, line.split(b"\0", WORDS)[:WORDS])))
