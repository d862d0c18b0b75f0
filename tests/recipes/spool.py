"""A program with SPOOL MiB in a memfd that it does not map, and HEAP MiB of its own memory."""

import json
import os
import sys

spool, heap = [*map(int, sys.argv[1:]), 4][:2]
fd = os.memfd_create("spool")
for _ in range(spool):
    os.write(fd, b"x" * (1 << 20))
rows = [b"x" * (1 << 20) for _ in range(heap)]
print(json.dumps({}), flush=True)
sys.stdin.read()
