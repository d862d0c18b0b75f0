"""Building blocks of BPF programs that look at kernel memory in place, instead of copying it out.

They load from any kernel address through bpf_rdonly_cast(), in loops of bpf_iter_num, which exist
since 6.4; older kernels do without these programs (LookupError from BTF). A load from an address
without memory returns 0 and no error, so anything that is all zero has to be read again by a reader
that reports errors.
Source: kernel/bpf/helpers.c, Documentation/bpf/kfuncs.rst.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import FP, R0, R1, R2, R3, R6, R7, Line
from pagewalk.kernel.bpf.syscall import Array, Program, load_program
from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.btf import Btf

# Tables per run that outputs a word for each page: a mebibyte of output.
TABLES = 256
SLOTS = PAGE // 8
FRAMES = TABLES * SLOTS

# The stack: two iterators of bpf_iter_num, the address of a table, and numbers.
OUTER, INNER, TABLE, FIRST, SECOND, THIRD = -8, -16, -24, -32, -40, -48

# Words that can be read through one cast.
CAST_WORDS = 16


class Casts(NamedTuple):
    """The BTF ids that the programs use.

    ``plain`` is a struct whose first 128 bytes are numbers: memory cast to it is read word by word.
    """

    plain: int
    cast: int
    begin: int
    step: int
    end: int


def find_casts(btf: Btf) -> Casts:
    """Look up the ids; raises LookupError on a kernel without them."""
    return Casts(
        plain=btf.struct_id("pt_regs"),
        cast=btf.function_id("bpf_rdonly_cast"),
        begin=btf.function_id("bpf_iter_num_new"),
        step=btf.function_id("bpf_iter_num_next"),
        end=btf.function_id("bpf_iter_num_destroy"),
    )


def load(code: bytes, name: str, *opened: Array | Program) -> Program:
    """Load a program; if the kernel refuses it (OSError), close what is ``opened``."""
    try:
        return load_program(code, name)
    except OSError:
        close(*opened)
        raise


def run(program: Program, count: int, most: int) -> None:
    """Run ``program`` over range(``count``) of its input, ``most`` at a time.

    It may not be preempted in the kernel: a thread of the target that wants this CPU has to wait
    for a run, which takes about a fifth of a millisecond.
    """
    for first in range(0, count, most):
        program.run_with(first, min(first + most, count))


def close(*opened: Array | Program) -> None:
    """Close their descriptors."""
    for one in opened:
        os.close(one.fd)


def loop(
    casts: Casts, at: int, label: str, body: list[Line], leaving: Sequence[Line] = ()
) -> list[Line]:
    """for number in range(r2, r3), at r0: body; ``at`` is the iterator's offset on the stack

    ``leaving`` is code that the body may jump to in order to leave the loop.
    """
    return [
        *iterator_at(at),
        asm.call_kernel(casts.begin),
        asm.Label(label),
        *iterator_at(at),
        asm.call_kernel(casts.step),
        asm.jump_eq_imm(R0, 0, f"{label} end"),
        *body,
        asm.jump(label),
        *leaving,
        asm.Label(f"{label} end"),
        *iterator_at(at),
        asm.call_kernel(casts.end),
    ]


def iterator_at(at: int) -> list[Line]:
    return [asm.move(R1, FP), asm.add_imm(R1, at)]


def index(register: int, size: int, below: int) -> list[Line]:
    """register = *r0 * size, bounded for the verifier; size and below are powers of two"""
    return [
        asm.load_u32(register, R0, 0),
        asm.and_imm(register, below - 1),
        asm.left_imm(register, size.bit_length() - 1),
    ]


def cast(casts: Casts) -> list[Line]:
    """r0 = the memory at r1"""
    return [asm.move_imm(R2, casts.plain), asm.call_kernel(casts.cast)]


def start(given: Array, words: Array) -> list[Line]:
    """r6 = the input, r7 = the output; r2 and r3 = the range of the input to handle, see run"""
    return [
        asm.map_value(R6, given.fd),
        asm.map_value(R7, words.fd),
        asm.load_u64(R2, R1, 0),
        asm.load_u64(R3, R1, 8),
    ]


def stop() -> list[Line]:
    """return 0"""
    return [asm.move_imm(R0, 0), asm.leave()]
