"""A service that was busy once: it made reports, and has freed nearly all that it allocated."""

import ctypes
import json
import mmap
import os
import sys
import threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
KEPT = 100  # of so many blocks one is still in use


def serve(size: int, count: int) -> None:
    """Allocate ``count`` blocks, write to them, and free all but every KEPT-th."""
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for number, block in enumerate(blocks):
        if number % KEPT:
            libc.free(block)


def work() -> None:
    """Answer one request, and wait for the next."""
    serve(1000, 20_000)
    busy.wait()
    asleep.wait()


# The main thread's heap, thread arenas, the interpreter's own pools, and shared memory.
serve(2000, 20_000)
busy, asleep = threading.Barrier(5), threading.Event()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
busy.wait()
rows = [(number, str(number)) for number in range(200_000)]
last = rows[::1000]
del rows
fd = os.memfd_create("cache")
os.truncate(fd, 8 << 20)
cache = mmap.mmap(fd, 8 << 20)
cache.write(b"x" * (8 << 20))
print(json.dumps({}), flush=True)
sys.stdin.read()
