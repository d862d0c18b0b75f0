"""A process whose memory changes on demand, a word on stdin at a time; it answers with one line.

``python changing.py FILE``: the first line says where each of its areas is, AREA pages long; a
word changes one of them. All is in small pages, until one area is told to become a huge one.
"""

import ctypes
import json
import mmap
import os
import sys

PAGE = mmap.PAGESIZE
AREA = 64  # pages
HUGE = 512  # pages
MADV_NOHUGEPAGE, MADV_PAGEOUT, MADV_COLLAPSE = 15, 21, 25
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
FAILED = ctypes.c_void_p(-1).value


def check(ok: bool, what: str) -> None:
    if not ok:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def mapped(pages: int, fd: int = -1, prot: int = 3, flags: int = mmap.MAP_PRIVATE) -> int:
    """Map ``pages``, with a page without access in front and behind: they merge with nothing."""
    anonymous = mmap.MAP_ANONYMOUS
    around = libc.mmap(None, (pages + 2) * PAGE, 0, mmap.MAP_PRIVATE | anonymous, -1, 0)
    check(around != FAILED, "mmap")
    at = around + PAGE
    fixed = flags | 0x10 | (anonymous if fd < 0 else 0)
    check(libc.mmap(at, pages * PAGE, prot, fixed, fd, 0) == at, "mmap")
    advise(at, pages, MADV_NOHUGEPAGE)
    return int(at)


def advise(at: int, pages: int, advice: int) -> None:
    check(not libc.madvise(at, pages * PAGE, advice), f"madvise({advice})")


def write(at: int, pages: int) -> None:
    for page in range(pages):
        ctypes.memset(at + page * PAGE, page % 250 + 1, 64)


def read(at: int, pages: int) -> None:
    for page in range(pages):
        ctypes.string_at(at + page * PAGE, 1)


def grow() -> None:
    areas["grown"] = mapped(AREA)
    write(areas["grown"], AREA)


def fork() -> None:
    ready, told = os.pipe()
    if not os.fork():
        os.write(told, b"x")
        while True:
            os.read(0, 0) or ctypes.CDLL(None).pause()
    os.read(ready, 1)


def move() -> None:
    to = mapped(AREA)
    found = libc.mremap(areas["move"], AREA * PAGE, AREA * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to)
    check(found == to, "mremap")


def collapse() -> None:
    advise(around, 3 * HUGE, mmap.MADV_HUGEPAGE)
    advise(areas["huge"], HUGE, MADV_COLLAPSE)
    advise(around, 3 * HUGE, MADV_NOHUGEPAGE)  # khugepaged leaves it alone again


areas = {name: mapped(AREA) for name in (
    "touch", "drop", "part", "unmap", "swap", "shared", "copied", "move", "zero")}
fd = os.open(sys.argv[1], os.O_RDWR)
areas["file"] = mapped(AREA, fd, prot=1, flags=mmap.MAP_SHARED)
areas["private_file"] = mapped(AREA, fd)
around = mapped(3 * HUGE)
areas["huge"] = (around + HUGE * PAGE - 1) // (HUGE * PAGE) * (HUGE * PAGE)
for name in ("drop", "part", "unmap", "swap", "shared", "copied", "move"):
    write(areas[name], AREA)
read(areas["zero"], AREA)
read(areas["private_file"], AREA)
write(areas["huge"], HUGE)

DO = {
    "touch": lambda: write(areas["touch"], 5),
    "drop": lambda: advise(areas["drop"], 7, mmap.MADV_DONTNEED),
    "part": lambda: check(not libc.munmap(areas["part"] + 8 * PAGE, 9 * PAGE), "munmap"),
    "unmap": lambda: check(not libc.munmap(areas["unmap"], AREA * PAGE), "munmap"),
    "grow": grow,
    "swap": lambda: advise(areas["swap"], 11, MADV_PAGEOUT),
    "read back": lambda: read(areas["swap"], 3),
    "zero": lambda: write(areas["zero"], 4),
    "file": lambda: read(areas["file"], AREA),
    "private_file": lambda: write(areas["private_file"], 6),
    "fork": fork,
    "copy": lambda: write(areas["copied"], 12),
    "move": move,
    "collapse": collapse,
    "split": lambda: advise(areas["huge"], 1, mmap.MADV_DONTNEED),
}

print(json.dumps({"areas": areas}), flush=True)
for line in sys.stdin:
    DO[line.rstrip("\n")]()
    print(json.dumps({"areas": areas}), flush=True)
