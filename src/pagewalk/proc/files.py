"""Small files of the kernel, whole. (pathlib would take 6 ms to import.)"""

from __future__ import annotations


def read_text(path: str) -> str:
    """Return what ``path`` holds; raises OSError."""
    with open(path) as file:
        return file.read()


def read_bytes(path: str) -> bytes:
    """Return what ``path`` holds; raises OSError."""
    with open(path, "rb") as file:
        return file.read()
