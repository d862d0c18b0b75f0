"""/proc/PID/task/TID/syscall: where the stacks of a process's threads are."""

from __future__ import annotations

import contextlib
import os

import numpy as np

from pagewalk.model.columns import U64
from pagewalk.proc.files import number, words
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target, folder

LONGEST = 256  # nine words of at most 18 characters


def read_stack_pointers(target: Target) -> U64:
    """Return the stack pointers of the threads that wait in the kernel, u64, ascending.

    One that is running has none there (proc_pid_syscall, fs/proc/base.c), and the kernel shows them
    only to those who may ptrace the process.
    """
    found = []
    with reading(target.pid, "task", target.pidfd), folder(target.pidfd, "task") as task:
        for tid in os.listdir(task):
            with contextlib.suppress(OSError):
                fd = os.open(f"{tid}/syscall", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task)
                try:
                    found += stack_pointer(os.read(fd, LONGEST))
                finally:
                    os.close(fd)
    return np.array(sorted(found), np.uint64)


def stack_pointer(text: bytes) -> list[int]:
    """Return the stack pointer in a syscall file, none of a running thread.

    The last two words are the stack pointer and the program counter.
    """
    fields = words(text.removesuffix(b"\n"))
    with contextlib.suppress(ValueError):
        if len(fields) >= 3:
            return [number(fields[-2].removeprefix(b"0x"), 16)]
    return []
