"""A small program that has written LOG, of MIB, deleted it, and keeps it open.

What logrotate leaves behind if nobody tells the program: the file has no name and stays.
"""

import json
import os
import sys

path, mib = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
for _ in range(mib):
    os.write(fd, b"x" * (1 << 20))
os.fsync(fd)
os.unlink(path)
print(json.dumps({"FD": fd, "LOG": path}), flush=True)
sys.stdin.read()
