"""A program that maps a model (FILE, of MIB) and has used a quarter of it.

Another quarter is only in the page cache; the rest is on the disk.
"""

import json
import mmap
import os
import sys

path, mib = sys.argv[1], int(sys.argv[2])
size, step = mib << 20, mmap.PAGESIZE
with open(path, "wb") as file:
    for _ in range(mib):
        file.write(b"x" * (1 << 20))
fd = os.open(path, os.O_RDONLY)
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
model = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
model.madvise(mmap.MADV_RANDOM)  # no page is read or mapped in advance
used = sum(model[at] for at in range(0, size // 4, step))
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for at in range(size // 4, size // 2, 1 << 20):
    os.pread(fd, 1 << 20, at)
print(json.dumps({"MODEL": path}), flush=True)
sys.stdin.read()
