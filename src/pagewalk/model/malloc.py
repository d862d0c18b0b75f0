"""What of glibc's malloc shows from outside: how it lays out its arenas."""

from __future__ import annotations

# HEAP_MAX_SIZE (malloc/arena.c): the heaps of a thread's arena begin at multiples of it.
HEAP_MAX = 64 << 20
