"""Stack pointers from syscall files."""

from __future__ import annotations

import pytest

from pagewalk.proc.stacks import stack_pointer


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        # proc_pid_syscall: number, six arguments, stack pointer, program counter
        (b"0 0x3 0x7ffd 0x400 0x0 0x0 0x0 0x7ffd12345678 0x7f0011223344\n", [0x7FFD12345678]),
        # blocked, but not in a system call
        (b"-1 0x7ffd12345678 0x7f0011223344\n", [0x7FFD12345678]),
        (b"running\n", []),
        (b"", []),
        (b"0 0x3 0x7f\xff 0x7f0011223344\n", []),
        (b"0 0x3 0x11112222333344445 0x7f0011223344\n", []),
        (b"w x y z\n", []),
    ],
)
def test_what_a_file_says(text: bytes, pointers: list[int]) -> None:
    assert stack_pointer(text) == pointers
