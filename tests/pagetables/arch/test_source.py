"""What is x86's stands in pagetables/arch/x86_64.py: read from the source."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pagewalk

ROOT = Path(pagewalk.__file__).parent
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent.name != "arch"
}

# Words of x86, in names and in texts that are not docstrings.
WORDS = re.compile(r"x86|i[3-6]86|ospke|address sizes|_SAVED_DIRTY|_PSE\b", re.IGNORECASE)
# The numbers of its page tables: slots, bytes by level, the masks of both, the frame, NX.
SIZES = {1 << shift for shift in (21, 30, 39, 48)}
NUMBERS = {512, *SIZES, 0x000F_FFFF_FFFF_F000, 1 << 63}
NUMBERS |= {number - 1 for number in (512, *SIZES)}
SHIFTS = {9, 12, 21, 30, 39, 48, 59}
# 4096 is many things; a page where it is so called, and where addresses are cut by it.
PAGE = {12, 4095, 4096}
PAGE_NAME = re.compile(r"PAGE|PAGE_S\w+|page_s\w+|page")

# (file, what was found): why it is there
ALLOWED = {
    # Names: tables by architecture of what an architecture need not be known for.
    ("proc/kcmp.py", "x86_64"): "the number of a system call, by machine",
    ("kernel/bpf/syscall.py", "x86_64"): "the number of a system call, by machine",
    ("proc/kernel.py", "x86_64"): "uname's name for the machine",
    ("proc/kernel.py", "i686"): "uname's name for the machine under setarch",
    ("proc/kernel.py", "ospke"): "a word of /proc/cpuinfo; procfs is read on any machine",
    ("proc/maps.py", "x86_64"): "the gate VMA's name, by machine; procfs is read on any",
    # glibc's layout, of the only machine on which it is read.
    ("heap/heap.py", "x86_64"): "on another machine heap withholds its numbers",
    ("heap/memory.py", 1 << 12): "the page size that glibc was built for",
    ("heap/mapped.py", 1 << 21): "thp_pagesize, which glibc reads from the kernel",
    # Numbers that are no sizes of page tables.
    ("heap/chunks.py", "shift 12"): "PROTECT_PTR's, whatever the machine",
    ("kernel/structs/frame_layout.py", 0x200): "a page type, PG_table, up to 6.9",
    ("heap/memory.py", 1 << 30): "how much is read at a time",
    ("model/columns.py", 1 << 9): "Flag.SWAP, of our own",
    ("model/columns.py", 1 << 21): "Flag.NORMAL, of our own",
    ("translate/translation.py", 1 << 63): "pagemap's bit for a present page",
    ("model/bits.py", 1 << 30): "VM_NOHUGEPAGE",
    ("kernel/structs/page_layout.py", 1 << 9): "a page type",
    ("kernel/structs/task.py", 1 << 21): "PF_KTHREAD",
    ("proc/target.py", 1 << 21): "PF_KTHREAD",
    ("proc/objects.py", 512): "SHM_DEST",
    ("proc/inotify.py", 512): "IN_DELETE",
    ("snapshot/documents.py", 1 << 63): "the bounds of a signed 64-bit number",
    ("snapshot/footer.py", 1 << 63): "the bounds of a signed 64-bit number",
    ("snapshot/read.py", 1 << 21): "how much of a file is read or held at most",
    ("proc/page_cache.py", 512): "st_blocks counts blocks of 512 bytes",
    ("proc/pagemap.py", 512): "the scan's bounce buffer; the values of a word's nine high bits",
    ("sources/pagemap.py", 1 << 21): "how much is asked for at a time",
    ("sources/pagemap.py", 512): "how much is asked for at a time",
    ("pagetables/count.py", 512): "how many tables are read at a time",
}

FOLDED = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.LShift: operator.lshift, ast.BitOr: operator.or_,
}


def number(node: ast.expr) -> int | None:
    """Return the value of ``1 << 21`` and the like, of np.uint64(...) of it too."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and "int" in ast.unparse(node.func):
        return number(node.args[0])
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.BinOp) and type(node.op) in FOLDED:
        left, right = number(node.left), number(node.right)
        if left is not None and right is not None and 0 <= right < 1 << 63:
            return int(FOLDED[type(node.op)](left, right))
    return None


def docstrings(tree: ast.AST) -> set[ast.AST]:
    found = set[ast.AST]()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            found.add(first.value)
    return found


def pages_named(node: ast.AST) -> Iterator[int]:
    """Yield the numbers that ``node`` calls a page's: ``PAGE = 4096``, ``page_size=4096``."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        pairs = [(ast.unparse(target), node.value) for target in targets]
        if isinstance(targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            names = map(ast.unparse, targets[0].elts)
            pairs = list(zip(names, node.value.elts, strict=False))
    elif isinstance(node, ast.arguments):
        named = node.posonlyargs + node.args
        with_default = zip(named[len(named) - len(node.defaults) :], node.defaults, strict=True)
        pairs = [(arg.arg, value) for arg, value in with_default]
    elif isinstance(node, ast.keyword):
        pairs = [(node.arg or "", node.value)]
    elif isinstance(node, ast.BinOp):
        cut = isinstance(node.op, ast.Mult | ast.FloorDiv | ast.Mod | ast.BitAnd)
        pairs = [("PAGE", side) for side in (node.left, node.right) if cut]
    else:
        return
    for name, value in pairs:
        if PAGE_NAME.fullmatch(name) and (found := number(value)) in PAGE:
            yield found or 0


@cache
def found_in(source: str) -> tuple[tuple[int, str | int], ...]:
    return tuple(found_by(ast.parse(source)))


def found_by(tree: ast.Module) -> Iterator[tuple[int, str | int]]:
    """Yield (line, word or number) of all that looks like x86."""
    passed = docstrings(tree)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if node in passed:
            continue
        line = getattr(node, "lineno", 0)
        texts = [getattr(node, field, "") for field in ("id", "attr", "name", "arg", "module")]
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            texts.append(str(node.value))
        for text in texts:
            yield from ((line, word.lower()) for word in words_in(text))
        yield from ((line, page) for page in pages_named(node))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift | ast.RShift):
            by = number(node.right)
            if by in SHIFTS and number(node.left) is None:
                yield line, f"shift {by}"
        value = number(node) if isinstance(node, ast.expr) else None
        if value in NUMBERS:
            yield line, value or 0
        if value is None:
            waiting.extend(ast.iter_child_nodes(node))


def words_in(text: object) -> list[str]:
    found = WORDS.findall(text) if isinstance(text, str) else []
    return ["x86_64" if word.lower() == "x86" else word for word in found]


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_of_x86_stands_outside_its_file(name: str) -> None:
    found = [(line, what) for line, what in found_in(SOURCES[name]) if (name, what) not in ALLOWED]
    assert found == []


def test_what_is_allowed_is_still_there() -> None:
    there = {(name, what) for name, source in SOURCES.items() for _, what in found_in(source)}
    assert set(ALLOWED) <= there


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("PAGE = 4096", 4096),
        ("PAGE_SHIFT, PMD_ORDER = 12, 9", 12),
        ("def read(page_size: int = 4096) -> None: ...", 4096),
        ("vm_pgoff * np.uint64(4096)", 4096),
        ("address & 0xFFF", 4095),
        ("SLOTS = 512", 512),
        ("address >> shift & 511", 511),
        ("PMD_SIZE = 2 << 20", 1 << 21),
        ("PMD_SIZE = np.uint64(1 << 21)", 1 << 21),
        ("gigabytes = size // (1 << 30)", 1 << 30),
        ("frame = entry & 0x000F_FFFF_FFFF_F000", 0x000F_FFFF_FFFF_F000),
        ("executable = not entry & 1 << 63", 1 << 63),
        ("pfn = address >> 12", "shift 12"),
        ("kind = entry >> np.uint64(59)", "shift 59"),
        ("from pagewalk.pagetables.arch.x86_64 import X86", "x86_64"),
        ("name = 'x86_64'", "x86_64"),
        ("x86_pte = 7", "x86_64"),
    ],
)
def test_the_check_sees_what_it_looks_for(source: str, what: str | int) -> None:
    assert what in {found for _, found in found_in(source)}
