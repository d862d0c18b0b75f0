"""The assembler against the instruction set's own encoding."""

from __future__ import annotations

import pytest

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import R0, R1, R2, R9


@pytest.mark.parametrize(
    ("instruction", "code"),
    [
        # opcode, src << 4 | dst, offset (little endian i16), immediate (i32); the opcodes are
        # BPF_CLASS | BPF_OP | BPF_SRC of include/uapi/linux/bpf_common.h and bpf.h.
        (asm.add(R1, R2), "0f 21 0000 00000000"),
        (asm.add_imm(R9, 16), "07 09 0000 10000000"),
        (asm.subtract(R1, R2), "1f 21 0000 00000000"),
        (asm.left(R1, R2), "6f 21 0000 00000000"),
        (asm.signed_right_imm(R9, 32), "c7 09 0000 20000000"),
        (asm.move(R1, R9), "bf 91 0000 00000000"),
        (asm.move_imm(R0, -1), "b7 00 0000 ffffffff"),
        (asm.load_u32(R2, R1, 8), "61 12 0800 00000000"),
        (asm.load_u64(R2, R1, -8), "79 12 f8ff 00000000"),
        (asm.store_u64(R1, 8, R2), "7b 21 0800 00000000"),
        (asm.call(113), "85 00 0000 71000000"),
        (asm.leave(), "95 00 0000 00000000"),
        (asm.map_value(R1, 5), "18 21 0000 05000000 00 00 0000 00000000"),
    ],
)
def test_encoding(instruction: asm.Line, code: str) -> None:
    assert asm.assemble(instruction) == bytes.fromhex(code)


def test_jumps_count_from_the_next_instruction() -> None:
    code = asm.assemble(
        asm.Label("top"),
        asm.jump_ge(R1, R2, "end"),
        asm.map_value(R1, 0),  # two instructions long
        asm.jump_lt_imm(R1, 9, "top"),
        asm.Label("end"),
        asm.leave(),
    )
    assert code[0:8] == bytes.fromhex("3d 21 0300 00000000")
    assert code[24:32] == bytes.fromhex("a5 01 fcff 09000000")


def test_conditions_of_jumps() -> None:
    code = asm.assemble(
        asm.jump_eq(R1, R2, "end"),
        asm.jump_set_imm(R1, 3, "end"),
        asm.jump_signed_gt_imm(R9, -1, "end"),
        asm.Label("end"),
    )
    assert code[0:8] == bytes.fromhex("1d 21 0200 00000000")
    assert code[8:16] == bytes.fromhex("45 01 0100 03000000")
    assert code[16:24] == bytes.fromhex("65 09 0000 ffffffff")


def test_a_missing_label_is_an_error() -> None:
    with pytest.raises(LookupError):
        asm.assemble(asm.jump_gt_imm(R1, 1, "nowhere"))
