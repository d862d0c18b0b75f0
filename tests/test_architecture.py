"""ARCHITECTURE.md: what it names is there, and the page takes the way that it tells."""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pagewalk.cli import main
from tests.documents import ROOT, prose
from tests.live.test_scan import needs_scan
from tests.test_layers import DOOR, MODULES, ROOMS, tree

TEXT = prose(ROOT / "ARCHITECTURE.md")
HOUSE = ROOT / "src/pagewalk"
# `walking/rows.join_batches`, `Target.dirfd`, `State`, `docs/counting.md`, `proc/`; nothing with
# blanks or dashes, which is a command or an expression. NAME stands for any name.
FOUND = set(re.findall(r"`([\w./]+(?:\(\))?)`", TEXT))
NAMES = sorted(name.removesuffix("()") for name in FOUND if "NAME" not in name)


def defined() -> set[str]:
    """Return the names of all classes, functions, constants and fields, and of Python itself."""
    found: set[str] = set(dir(builtins))
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found |= {name.id for t in node.targets for name in ast.walk(t)
                          if isinstance(name, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


DEFINED = defined()


def lookup(name: str) -> tuple[str, str]:
    """Return (module, what in it) of `walking/rows.join_batches` or the like; else ("", name)."""
    path, _, inner = name.partition(".")
    module = path.replace("/", ".")
    return (module, inner) if module in MODULES else ("", name)


def has(holder: Any, inner: str) -> bool:
    for part in inner.split("."):
        fields = getattr(holder, "__annotations__", {})
        if part in fields and not hasattr(holder, part):
            return True  # a field: what it holds is not to be had from the class
        if not hasattr(holder, part):
            return False
        holder = getattr(holder, part)
    return True


def exists(name: str) -> bool:
    if name.endswith(("/", ".py", ".md")):
        return any((top / name).exists() for top in (ROOT, HOUSE))
    module, inner = lookup(name)
    if not module:
        return set(name.split(".")) <= DEFINED
    return not inner or has(importlib.import_module(f"pagewalk.{module}"), inner)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists_where_it_is_said_to_be(name: str) -> None:
    assert exists(name)


def test_the_check_sees_what_is_not_there() -> None:
    wrong = ("walking/rows.nowhere", "nowhere/", "model/nowhere.py", "Target.nowhere", "nowhere")
    assert not any(map(exists, wrong))


def test_the_house_drawn_is_the_house_that_is_enforced() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w/]+)` \| (.+?) \|", TEXT, re.M)
    drawn = {room.rstrip("/").replace("/", "."): (int(rank), says) for rank, room, says in rows}
    assert drawn == {name: (room.rank, room.says) for name, room in ROOMS.items() if name != DOOR}


# ---- the way of a page


def story() -> list[list[str]]:
    """Return the functions named in each step of the section that follows a page."""
    section = TEXT.partition("## One page, followed")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. (.+(?:\n   .+)*)", section, re.M)
    return [re.findall(r"`([\w/]+\.[\w.]+)`", step) for step in steps]


def ran(words: list[str]) -> list[str]:
    """Run a command and return our functions, in the order in which each first gave something back.

    A generator does so when it first yields. This is the page's order, not that of the calls, which
    run the other way: a room asks the one below it.
    """
    order: dict[str, None] = {}

    def see(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "return" and HOUSE in path.parents:
            module = str(path.relative_to(HOUSE).with_suffix("")).removesuffix("/__init__")
            order.setdefault(f"{module}.{frame.f_code.co_qualname}")

    sys.setprofile(see)
    try:
        assert main(words) in (0, 3)
    finally:
        sys.setprofile(None)
    return list(order)


@pytest.mark.live
@needs_scan
def test_a_page_takes_the_way_described(capsys: pytest.CaptureFixture[str]) -> None:
    door, *steps, end = story()
    went = ran(["pages", str(os.getpid()), "--source", "procfs", "--where", "anon"])
    assert capsys.readouterr().out
    assert [name for step in (door, *steps, end) for name in step if name not in went] == []
    told = [name for step in steps for name in step]
    assert len(told) > 10
    assert told == sorted(told, key=went.index)
