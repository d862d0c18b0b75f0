"""A very small assembler for eBPF, with only the instructions that the programs here need.

An instruction is eight bytes: opcode, destination and source register, jump or memory offset,
immediate (Documentation/bpf/standardization/instruction-set.rst).
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

_PSEUDO_MAP_VALUE, _PSEUDO_KFUNC_CALL = 2, 2


class Instruction(NamedTuple):
    """One instruction; ``target`` is the label that a jump goes to."""

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    target: str = ""


class Label(NamedTuple):
    """A name for the position of the next instruction."""

    name: str


Line = Instruction | Label | tuple[Instruction, ...]


def _registers(opcode: int) -> Callable[[int, int], Instruction]:
    return lambda dst, src: Instruction(opcode, dst, src)


def _number(opcode: int) -> Callable[[int, int], Instruction]:
    return lambda dst, imm: Instruction(opcode, dst, imm=imm)


def _load(opcode: int) -> Callable[[int, int, int], Instruction]:
    return lambda dst, base, offset: Instruction(opcode, dst, base, offset)


def _jump_registers(opcode: int) -> Callable[[int, int, str], Instruction]:
    return lambda dst, src, target: Instruction(opcode, dst, src, target=target)


def _jump_number(opcode: int) -> Callable[[int, int, str], Instruction]:
    return lambda dst, imm, target: Instruction(opcode, dst, imm=imm, target=target)


# Registers are unsigned, numbers are sign extended from 32 bits.
add, add_imm = _registers(0x0F), _number(0x07)  # dst += src or imm
subtract = _registers(0x1F)  # dst -= src
or_ = _registers(0x4F)  # dst |= src
and_, and_imm = _registers(0x5F), _number(0x57)  # dst &= src or imm
left_imm, right_imm = _number(0x67), _number(0x77)  # dst <<= imm, dst >>= imm
left, signed_right_imm = _registers(0x6F), _number(0xC7)  # dst <<= src, dst >>= imm with the sign
move, move_imm = _registers(0xBF), _number(0xB7)  # dst = src or imm
load_u32, load_u64 = _load(0x61), _load(0x79)  # dst = *(u32 or u64 *)(base + offset)

# if dst == imm goto target, and so on
jump_eq_imm, jump_ne_imm, jump_ne = _jump_number(0x15), _jump_number(0x55), _jump_registers(0x5D)
jump_gt_imm, jump_gt = _jump_number(0x25), _jump_registers(0x2D)
jump_ge, jump_lt_imm = _jump_registers(0x3D), _jump_number(0xA5)
jump_eq, jump_set_imm = _jump_registers(0x1D), _jump_number(0x45)  # set: if dst & imm
jump_signed_gt_imm = _jump_number(0x65)


def store_u64(base: int, offset: int, src: int) -> Instruction:
    """*(u64 *)(base + offset) = src"""
    return Instruction(0x7B, base, src, offset)


def jump(target: str) -> Instruction:
    """goto target"""
    return Instruction(0x05, target=target)


def map_value(dst: int, map_fd: int) -> tuple[Instruction, Instruction]:
    """dst = address of the first value of an array map; takes two instructions"""
    return Instruction(0x18, dst, _PSEUDO_MAP_VALUE, imm=map_fd), Instruction(0)


def constant(dst: int, value: int) -> tuple[Instruction, Instruction]:
    """dst = value (64 bits); takes two instructions"""
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return Instruction(0x18, dst, imm=low), Instruction(0, imm=high)


def call(helper: int) -> Instruction:
    """r0 = helper(r1, r2, r3, r4, r5)"""
    return Instruction(0x85, imm=helper)


def call_kernel(function: int) -> Instruction:
    """r0 = the kernel's function of that BTF id (r1, r2, r3, r4, r5)"""
    return Instruction(0x85, src=_PSEUDO_KFUNC_CALL, imm=function)


def leave() -> Instruction:
    """return r0"""
    return Instruction(0x95)


def assemble(*lines: Line) -> bytes:
    """Return the machine code for ``lines``, eight bytes per instruction, with jumps resolved.

    Raises LookupError for a jump to a label that does not exist.
    """
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in lines:
        if isinstance(line, Label):
            labels[line.name] = len(code)
        elif isinstance(line, Instruction):
            code.append(line)
        else:
            code.extend(line)
    return b"".join(_encode(one, place, labels) for place, one in enumerate(code))


def _encode(one: Instruction, place: int, labels: dict[str, int]) -> bytes:
    # A jump offset counts from the next instruction.
    offset = labels[one.target] - place - 1 if one.target else one.offset
    return struct.pack("<BBhi", one.opcode, one.dst | one.src << 4, offset, one.imm)
