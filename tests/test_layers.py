"""The layer rule: data flows one way, and only the outer layers touch the machine."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pagewalk

ROOT = Path(pagewalk.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# A module or a folder, and its rank: it may import what ranks equal or lower.
RANKS = {
    "errors": 0, "facts": 0, "flags": 0, "pages": 0, "ranges": 0, "soft": 0,
    "paging": 1, "scan": 1, "pgtable": 1, "tally": 1, "arch": 1, "btf": 1, "rules": 1, "states": 1,
    "vtop": 1,
    "proc": 1, "kmem": 1,
    "outcome": 2, "sources": 2,
    "rows": 3, "sums": 3, "afterwards": 3, "walking": 3,
    "account": 3, "smaps": 3, "rollup": 3, "held": 3, "holdings": 3, "census": 3, "ledger": 3,
    "moves": 3, "particulars": 3, "eligible": 3, "lazyfree": 3,
    "where": 3, "lines": 3, "describe": 3, "vma_table": 3, "terminal": 3,
    "address": 3, "remarks": 3, "translate": 3, "vtop_words": 3, "check": 3,
    "render": 4,
    "commands": 5, "tui": 5,
    "interrupt": 6, "cli": 6, "__main__": 6, "__init__": 6,
}
# Files of these folders do not know one another.
STRANGERS = ("arch", "render", "commands")
# These read the machine or talk to people; nothing else does.
OUTWARD = ("proc", "kmem", "sources", "render", "commands", "tui", "cli", "__main__")
VAGUE = {"util", "utils", "common", "base", "core", "manager", "factory", "helper", "helpers"}


def folder(module: str) -> str:
    return module.partition(".")[0]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, full dotted name) of every import, also those inside functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def ours(module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module of pagewalk) of every import of our own."""
    for line, name in imports(module):
        if folder(name) != "pagewalk":
            continue
        inner = name.removeprefix("pagewalk.")
        while inner and inner not in MODULES:  # cut the imported name off its module
            inner = inner.rpartition(".")[0]
        yield line, inner or "__init__"


def test_every_module_has_a_rank() -> None:
    assert {folder(module) for module in MODULES} <= set(RANKS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_sideways(module: str) -> None:
    rank = RANKS[folder(module)]
    up = [(line, name) for line, name in ours(module) if RANKS[folder(name)] > rank]
    assert up == []


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) in STRANGERS and "." in m])
def test_siblings_never_see_one_another(module: str) -> None:
    siblings = {m for m in MODULES if folder(m) == folder(module) and "." in m} - {module}
    assert [(line, name) for line, name in ours(module) if name in siblings] == []


def touches(module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of each call that reads a file, drives a device, or prints."""
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in ("open", "print", "input"):
            yield node.lineno, called.id
        elif isinstance(called, ast.Attribute):
            of = getattr(called.value, "id", "")
            reads = called.attr in ("ioctl", "read_bytes", "read_text", "write_text")
            if reads or (of, called.attr) == ("os", "open"):
                yield node.lineno, called.attr


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) not in OUTWARD])
def test_inner_layers_touch_nothing(module: str) -> None:
    assert list(touches(module)) == []


def test_the_check_for_touching_sees_the_outer_layers_touch() -> None:
    found = {what for m in MODULES if folder(m) in OUTWARD for _, what in touches(m)}
    assert {"open", "print", "ioctl"} <= found


def packages(requirements: list[str]) -> set[str]:
    """Return the names in ``["numpy>=2.2"]``."""
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


PROJECT = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
NEEDED = packages(PROJECT["dependencies"])
OPTIONAL = {
    name for extra, rows in PROJECT["optional-dependencies"].items() if extra != "test"
    for name in packages(rows)
}


@pytest.mark.parametrize("module", MODULES)
def test_only_declared_packages_are_imported(module: str) -> None:
    known = {*sys.stdlib_module_names, "pagewalk", *NEEDED, *OPTIONAL}
    assert {folder(name) for _, name in imports(module)} <= known


@pytest.mark.parametrize("package", sorted(OPTIONAL))
def test_an_optional_package_is_imported_in_one_file_only_and_when_needed(package: str) -> None:
    users = {m for m in MODULES if package in {folder(name) for _, name in imports(m)}}
    assert len(users) <= 1
    for module in users:
        top = {node.lineno for node in tree(module).body}
        assert top.isdisjoint(line for line, name in imports(module) if folder(name) == package)


def test_no_module_has_a_vague_name() -> None:
    words = {word for module in MODULES for word in module.replace("_", ".").split(".")}
    assert words.isdisjoint(VAGUE)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_fits_in_the_head(module: str) -> None:
    # The budget is 300 lines, 500 with a reason.
    assert len(MODULES[module].read_text().splitlines()) <= 500
