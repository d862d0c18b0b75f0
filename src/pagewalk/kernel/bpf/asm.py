"""A very small assembler for eBPF, with only the instructions that the programs here need.

An instruction is eight bytes: opcode, destination and source register, jump or memory offset,
immediate (Documentation/bpf/standardization/instruction-set.rst).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

_ADD_IMM, _ADD_REG = 0x07, 0x0F
_OR_REG, _AND_REG, _AND_IMM, _LEFT_IMM, _RIGHT_IMM = 0x4F, 0x5F, 0x57, 0x67, 0x77
_MOVE_IMM, _MOVE_REG = 0xB7, 0xBF
_LOAD_U32, _LOAD_U64, _STORE_U64, _LOAD_IMM64 = 0x61, 0x79, 0x7B, 0x18
_JUMP, _JUMP_EQ_IMM, _JUMP_NE_IMM, _JUMP_NE_REG, _JUMP_GT_REG = 0x05, 0x15, 0x55, 0x5D, 0x2D
_JUMP_GT_IMM, _JUMP_GE_REG, _JUMP_LT_IMM = 0x25, 0x3D, 0xA5
_CALL, _EXIT = 0x85, 0x95

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


def add(dst: int, src: int) -> Instruction:
    """dst += src"""
    return Instruction(_ADD_REG, dst, src)


def add_imm(dst: int, imm: int) -> Instruction:
    """dst += imm"""
    return Instruction(_ADD_IMM, dst, imm=imm)


def or_(dst: int, src: int) -> Instruction:
    """dst |= src"""
    return Instruction(_OR_REG, dst, src)


def and_(dst: int, src: int) -> Instruction:
    """dst &= src"""
    return Instruction(_AND_REG, dst, src)


def and_imm(dst: int, imm: int) -> Instruction:
    """dst &= imm, sign extended"""
    return Instruction(_AND_IMM, dst, imm=imm)


def left_imm(dst: int, imm: int) -> Instruction:
    """dst <<= imm"""
    return Instruction(_LEFT_IMM, dst, imm=imm)


def right_imm(dst: int, imm: int) -> Instruction:
    """dst >>= imm (unsigned)"""
    return Instruction(_RIGHT_IMM, dst, imm=imm)


def move(dst: int, src: int) -> Instruction:
    """dst = src"""
    return Instruction(_MOVE_REG, dst, src)


def move_imm(dst: int, imm: int) -> Instruction:
    """dst = imm"""
    return Instruction(_MOVE_IMM, dst, imm=imm)


def map_value(dst: int, map_fd: int) -> tuple[Instruction, Instruction]:
    """dst = address of the first value of an array map; takes two instructions"""
    return Instruction(_LOAD_IMM64, dst, _PSEUDO_MAP_VALUE, imm=map_fd), Instruction(0)


def constant(dst: int, value: int) -> tuple[Instruction, Instruction]:
    """dst = value (64 bits); takes two instructions"""
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return Instruction(_LOAD_IMM64, dst, imm=low), Instruction(0, imm=high)


def load_u32(dst: int, base: int, offset: int) -> Instruction:
    """dst = *(u32 *)(base + offset)"""
    return Instruction(_LOAD_U32, dst, base, offset)


def load_u64(dst: int, base: int, offset: int) -> Instruction:
    """dst = *(u64 *)(base + offset)"""
    return Instruction(_LOAD_U64, dst, base, offset)


def store_u64(base: int, offset: int, src: int) -> Instruction:
    """*(u64 *)(base + offset) = src"""
    return Instruction(_STORE_U64, base, src, offset)


def jump(target: str) -> Instruction:
    """goto target"""
    return Instruction(_JUMP, target=target)


def jump_eq_imm(register: int, imm: int, target: str) -> Instruction:
    """if register == imm goto target"""
    return Instruction(_JUMP_EQ_IMM, register, imm=imm, target=target)


def jump_ne_imm(register: int, imm: int, target: str) -> Instruction:
    """if register != imm goto target"""
    return Instruction(_JUMP_NE_IMM, register, imm=imm, target=target)


def jump_ne(register: int, other: int, target: str) -> Instruction:
    """if register != other goto target"""
    return Instruction(_JUMP_NE_REG, register, other, target=target)


def jump_gt(register: int, other: int, target: str) -> Instruction:
    """if register > other (unsigned) goto target"""
    return Instruction(_JUMP_GT_REG, register, other, target=target)


def jump_gt_imm(register: int, imm: int, target: str) -> Instruction:
    """if register > imm (unsigned) goto target"""
    return Instruction(_JUMP_GT_IMM, register, imm=imm, target=target)


def jump_ge(register: int, other: int, target: str) -> Instruction:
    """if register >= other (unsigned) goto target"""
    return Instruction(_JUMP_GE_REG, register, other, target=target)


def jump_lt_imm(register: int, imm: int, target: str) -> Instruction:
    """if register < imm (unsigned) goto target"""
    return Instruction(_JUMP_LT_IMM, register, imm=imm, target=target)


def call(helper: int) -> Instruction:
    """r0 = helper(r1, r2, r3, r4, r5)"""
    return Instruction(_CALL, imm=helper)


def call_kernel(function: int) -> Instruction:
    """r0 = the kernel's function of that BTF id (r1, r2, r3, r4, r5)"""
    return Instruction(_CALL, src=_PSEUDO_KFUNC_CALL, imm=function)


def leave() -> Instruction:
    """return r0"""
    return Instruction(_EXIT)


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
