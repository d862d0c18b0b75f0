"""A Ctrl-C while numpy compares columns is not lost: numpy gets plain numbers, not enums."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import numpy as np
import pytest

from pagewalk.model.columns import State
from tests.plain_numbers import watched
from tests.test_layers import MODULES, tree

ENUMS = {"State", "Flag", "Backing", "Kind", "Why"}
# These convert an enum to a numpy number by themselves, without asking its type.
NUMBERS = {"uint8", "uint32", "uint64"}


def member(node: ast.AST) -> bool:
    """Return whether ``node`` is a member of an enum, or a combination of members."""
    if isinstance(node, ast.BinOp):
        return member(node.left) and member(node.right)
    return (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            and node.value.id in ENUMS)


def operands(node: ast.AST) -> list[ast.expr]:
    """Return the operands that numpy would look at if ``node`` is an operation on columns."""
    if isinstance(node, ast.Compare):
        by_identity = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
        known = all(isinstance(op, by_identity) for op in node.ops)
        return [] if known else [node.left, *node.comparators]
    if isinstance(node, ast.BinOp):
        sides = [node.left, node.right]
        plain = any(isinstance(side, ast.Constant) for side in sides)  # the result is a number
        return [] if plain or member(node) else sides
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of_numpy = isinstance(node.func.value, ast.Name) and node.func.value.id == "np"
        return list(node.args) if of_numpy and node.func.attr not in NUMBERS else []
    return []


def enums_among_columns(code: ast.AST) -> Iterator[int]:
    """Yield the lines where an enum's member is compared with, or passed to numpy, as it is."""
    for node in ast.walk(code):
        if any(member(operand) for operand in operands(node)):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", MODULES)
def test_columns_are_only_compared_with_plain_numbers(module: str) -> None:
    assert list(enums_among_columns(tree(module))) == []


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("pages.state == State.ANON", 1),
        ("pages.state == State.ANON.value", 0),
        ("flags & (Flag.A | Flag.B)", 1),
        ("flags & np.uint32(Flag.A | Flag.B)", 0),
        ("np.full(3, State.ANON, np.uint8)", 1),
        ("np.where(mask, Flag.WRITE.value, 0)", 0),
        ("Kind.EMPTY - 1", 0),
        ("found.state is State.ANON", 0),
        ("Flag.USER in step.flags", 0),
    ],
)
def test_the_source_check_finds_faults(code: str, faults: int) -> None:
    assert len(list(enums_among_columns(ast.parse(code)))) == faults


def test_numpy_looks_up_attributes_on_an_enum_and_not_on_a_number() -> None:
    # Otherwise `watched`, which runs during every test, would see nothing at all.
    column = np.zeros(3, np.uint8)
    with watched(everywhere=True) as found:
        assert (column == State.ANON).all()
    assert {entry.split(": ", 1)[1] for entry in found} == {"__array_ufunc__ of State"}
    with watched(everywhere=True) as found:
        assert (column == State.ANON.value).all()
    assert found == set()
