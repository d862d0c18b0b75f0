"""A process with odd names for everything: python -m tests.live.oddly_named FOLDER.

It runs as an ordinary user, in its own user and mount namespaces, so that nothing is left behind.
In FOLDER it creates a mount point with every possible byte in its name, and in that a file with the
same name, which it maps. It maps a memfd and runs a program with an odd argv[0] likewise. It prints
the two pids, its own first; each line it reads, in hex, becomes its name, and is answered by "ok".
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from tests.live.dropped import become

NOBODY = 65534
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # include/uapi/linux/sched.h
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14  # include/uapi/linux/mount.h
# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_VMA, PR_SET_VMA_ANON_NAME = 1, 15, 0x53564D41, 0
SIGKILL = 9

# Every byte a name may hold, and characters of several bytes that str.splitlines and str.split take
# for structure, or a terminal for a direction: U+0085, U+2028, U+202E. A path component has at most
# 255 bytes.
BYTES = bytes(byte for byte in range(1, 256) if byte != ord("/"))
WIDE = "\x85\u2028\u202e".encode()

libc = ctypes.CDLL(None, use_errno=True)


def system(name: str, *args: object) -> None:
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), name)


def enter_namespaces() -> None:
    system("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    for kind in ("uid", "gid"):
        Path(f"/proc/self/{kind}_map").write_text(f"0 {NOBODY} 1")
    system("mount", None, b"/", None, MS_PRIVATE | MS_REC, None)


def odd_file(folder: bytes) -> bytes:
    """Mount a tmpfs on an odd folder in ``folder``; return the path of a program in it."""
    system("mount", b"none", folder, b"tmpfs", 0, None)
    point = folder + b"/" + BYTES + b"/" + WIDE
    os.makedirs(point)
    # The source and the options of a mount are names too.
    system("mount", BYTES, point, b"tmpfs", 0, None)
    path = point + b"/" + BYTES
    shutil.copy(os.fsencode(shutil.which("sleep") or "/bin/sleep"), path)
    return path


def map_all(path: bytes) -> list[mmap.mmap]:
    """Map the file, a memfd and anonymous memory, all of them with odd names."""
    maps = []
    with open(path, "rb") as file:
        maps.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    for name in (BYTES[:200], BYTES[200:] + WIDE):
        fd = os.memfd_create(name)
        os.ftruncate(fd, mmap.PAGESIZE)
        maps.append(mmap.mmap(fd, 0))
    maps.append(mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE))
    for found in maps[1:]:
        found[0] = 1
    # The kernel accepts only printable ASCII, and no name at all without CONFIG_ANON_VMA_NAME.
    place = ctypes.addressof(ctypes.c_char.from_buffer(maps[-1]))
    with suppress(OSError):
        system("prctl", PR_SET_VMA, PR_SET_VMA_ANON_NAME, ctypes.c_ulong(place),
               ctypes.c_ulong(mmap.PAGESIZE), b"a b: 4 kB 1-2 (deleted)")
    return maps


def start_program(path: bytes) -> int:
    """Run sleep(1) from ``path``, with an argv[0] that has every byte."""
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
        os.execv(path, [BYTES + b"/" + WIDE, b"3600"])
    return pid


def main(folder: str) -> None:
    become(NOBODY)
    enter_namespaces()
    path = odd_file(os.fsencode(folder))
    maps = map_all(path)
    print(os.getpid(), start_program(path), flush=True)
    for line in sys.stdin:
        libc.prctl(PR_SET_NAME, bytes.fromhex(line))
        print("ok", flush=True)
    del maps


if __name__ == "__main__":
    main(sys.argv[1])
