"""The layer rules: which room a module belongs to, and what it may import and call.

A room is a package. A module imports from its own room and from rooms of lower rank only.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import pagewalk
from pagewalk.cli import COMMANDS
from pagewalk.render import FORMATS

ROOT = Path(pagewalk.__file__).parent
TESTS = Path(__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
DOOR = "pagewalk"  # the package itself, and the only modules at its top
TOP = {"__init__", "__main__", "cli", "interrupt", "pytest_plugin"}


class Room(NamedTuple):
    """The rank of a room, what it is, and whether its modules may open files and print."""

    rank: int
    says: str
    outward: bool = False


ROOMS = {
    "model": Room(0, "the types that every room shares"),
    "pagetables": Room(1, "page tables in any format, and walks over them"),
    "proc": Room(1, "the kernel's text files and ioctls, one module per interface", True),
    "pagetables.arch": Room(2, "the architectures, one file each"),
    "kernel.bpf": Room(2, "BPF: instructions, the system call, and why it was refused"),
    "kernel.readers": Room(3, "kernel memory as bytes, read in one of three ways", True),
    "kernel.structs": Room(4, "kernel memory as structs, found through BTF"),
    "kernel.programs": Room(5, "BPF programs that save copying"),
    "kernel": Room(6, "the running kernel, opened and verified", True),
    "snapshot": Room(6, "recordings: one file that answers like what was recorded", True),
    "sources": Room(7, "one address space, opened in one of several ways", True),
    "walking": Room(8, "page-table entries joined with their VMA and frame"),
    "account": Room(9, "sums, and the proof that they are right"),
    "heap": Room(9, "inside a process's memory: what its allocator holds", True),
    "translate": Room(9, "one address through the page tables"),
    "system": Room(10, "all of RAM, all processes, every cgroup"),
    "history": Room(11, "what changed: recordings, differences, budgets, many machines", True),
    "render": Room(12, "results as text, JSON, CSV and the module's log", True),
    "commands": Room(13, "the click commands, one file each", True),
    DOOR: Room(14, "the front door: the parser, and the names that users import", True),
}
# Files that do not import one another, so that each can be removed without touching the others.
STRANGERS = {
    "pagetables.arch": None,
    "sources": ("procfs", "readers"),
    "render": tuple(FORMATS),
    "commands": tuple(COMMANDS),
}
VAGUE = {"util", "utils", "common", "base", "core", "manager", "factory", "helper", "helpers"}


@cache
def room_of(module: str) -> str:
    """Return the room of ``module``: its package, or the module itself if it is one."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return DOOR if package in ("", "__init__") else package


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
        if name.partition(".")[0] != "pagewalk":
            continue
        inner = name.removeprefix("pagewalk.")
        while inner and inner not in MODULES:  # cut the imported name off its module
            inner = inner.rpartition(".")[0]
        yield line, inner or "__init__"


# ---- rooms, and what they import


def test_every_module_is_in_a_room_and_every_room_exists() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_nothing_else_is_at_the_top() -> None:
    assert {module for module in MODULES if room_of(module) == DOOR} == TOP


def broken(module: str, other: str) -> str | None:
    """Return a sentence naming the rule that ``module`` breaks by importing ``other``, or None."""
    here, there = room_of(module), room_of(other)
    if here == there or ROOMS[there].rank < ROOMS[here].rank:
        return None
    equal = ROOMS[there].rank == ROOMS[here].rank
    why = "they have the same rank" if equal else "it has a higher rank"
    return (
        f"{module} in room {here} imports {other} in room {there}: {here} ({ROOMS[here].says}) may"
        f" not know {there} ({ROOMS[there].says}) because {why}"
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    rules = ((line, broken(module, other)) for line, other in ours(module))
    found = [f"line {line}: {rule}" for line, rule in rules if rule]
    assert not found, "\n".join(found)


def test_a_broken_rule_is_printed_as_a_sentence() -> None:
    assert broken("proc.swap", "model.errors") is None
    assert broken("proc.swap", "proc.files") is None
    assert broken("proc.swap", "sources.procfs") == (
        "proc.swap in room proc imports sources.procfs in room sources: proc (the kernel's text"
        " files and ioctls, one module per interface) may not know sources (one address space,"
        " opened in one of several ways) because it has a higher rank"
    )
    why = broken("account.table", "translate.translate")
    assert why is not None and why.endswith("because they have the same rank")


def circle(arrows: Mapping[str, Set[str]]) -> list[str]:
    """Return the names on a circle of ``arrows``, the first one again at the end; [] if none."""
    done: set[str] = set()

    def follow(way: list[str]) -> list[str]:
        for name in sorted(arrows.get(way[-1], ())):
            if name in way:
                return [*way[way.index(name) :], name]
            if name not in done and (found := follow([*way, name])):
                return found
        done.add(way[-1])
        return []

    return next((found for name in arrows if (found := follow([name]))), [])


FILES = {module: {other for _, other in ours(module)} - {module} for module in MODULES}


def test_no_circle_of_files() -> None:
    found = circle(FILES)
    assert not found, f"these files import one another in a circle: {' -> '.join(found)}"


def test_no_circle_of_rooms() -> None:
    rooms = {
        room: {room_of(other) for m in MODULES if room_of(m) == room for other in FILES[m]} - {room}
        for room in ROOMS
    }
    found = circle(rooms)
    assert not found, f"these rooms import one another in a circle: {' -> '.join(found)}"


def test_a_circle_is_found_wherever_it_is_entered() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}}) == []
    assert circle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d", "b"]


def strangers(room: str) -> set[str]:
    names = STRANGERS[room]
    inside = {m for m in MODULES if room_of(m) == room and m != room}
    return inside if names is None else {f"{room}.{name}" for name in names}


@pytest.mark.parametrize("module", sorted(set().union(*map(strangers, STRANGERS))))
def test_strangers_do_not_know_one_another(module: str) -> None:
    others = strangers(room_of(module)) - {module}
    assert [(line, name) for line, name in ours(module) if name in others] == []


# ---- modules that open files or print


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


@pytest.mark.parametrize("module", [m for m in MODULES if not ROOMS[room_of(m)].outward])
def test_inner_rooms_touch_nothing(module: str) -> None:
    assert list(touches(module)) == []


def test_the_check_finds_the_calls_of_the_outward_rooms() -> None:
    found = {what for m in MODULES if ROOMS[room_of(m)].outward for _, what in touches(m)}
    assert {"open", "print", "ioctl"} <= found


# ---- the docstring of a room


@pytest.mark.parametrize("room", [room for room in ROOMS if room != DOOR])
def test_a_room_says_what_it_takes_what_it_gives_and_what_does_not_belong_there(room: str) -> None:
    said = (ast.get_docstring(tree(room)) or "").split("\n")
    assert said[0].endswith("."), "begin with one sentence"
    starts = [line.partition(" ")[0] for line in said[2:5]]
    assert starts == ["Takes", "Gives", "Not"], f"{room}/__init__.py: {said[2:5]}"
    assert said[4].startswith("Not here: ") and (len(said) == 5 or not said[5])


@pytest.mark.parametrize(
    "room",
    ["model", "pagetables", "proc", "kernel", "kernel.bpf", "kernel.readers", "kernel.structs",
     "kernel.programs", "walking", "account", "translate"],
)
def test_entering_a_room_imports_nothing(room: str) -> None:
    assert list(imports(room)) == []  # a command reads only what it needs


# ---- packages, names, sizes


def packages(requirements: list[str]) -> set[str]:
    """Return the names in ``["numpy>=2.2"]``, as they are imported."""
    return {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in requirements}


PROJECT = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
NEEDED = packages(PROJECT["dependencies"])
OPTIONAL = {
    name for extra, rows in PROJECT["optional-dependencies"].items() if extra != "test"
    for name in packages(rows) if name != "pagewalk"
}


@pytest.mark.parametrize("module", MODULES)
def test_only_declared_packages_are_imported(module: str) -> None:
    known = {*sys.stdlib_module_names, "pagewalk", *NEEDED, *OPTIONAL}
    assert {name.partition(".")[0] for _, name in imports(module)} <= known


@pytest.mark.parametrize("package", sorted(OPTIONAL))
def test_an_optional_package_is_imported_in_one_file_only_and_when_needed(package: str) -> None:
    users = {m for m in MODULES if package in {n.partition(".")[0] for _, n in imports(m)}}
    assert len(users) <= 1
    for module in users:
        top = {node.lineno for node in tree(module).body}
        found = {line for line, name in imports(module) if name.partition(".")[0] == package}
        assert top.isdisjoint(found)


def test_no_module_has_a_vague_name() -> None:
    words = {word for module in MODULES for word in module.replace("_", ".").split(".")}
    assert words.isdisjoint(VAGUE)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_fits_in_the_head(module: str) -> None:
    # The budget is 300 lines, 500 with a reason.
    assert len(MODULES[module].read_text().splitlines()) <= 500
