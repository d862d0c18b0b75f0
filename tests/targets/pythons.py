"""Versions of CPython: this one's, and those of other releases of Debian, unpacked.

PAGEWALK_PYTHON in the environment names more of them: paths of interpreters, separated by colons.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.targets.glibcs import LIBRARIES, LOADER, fetched, libraries

DEBIAN = {"3.9": "bullseye", "3.13": "trixie"}
MORE = [path for path in os.environ.get("PAGEWALK_PYTHON", "").split(":") if path]
PYTHONS = (sys.executable, *DEBIAN, *MORE)


def interpreter(python: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that start one of PYTHONS, and its environment."""
    if python not in DEBIAN:
        return [python], dict(os.environ)
    suite = DEBIAN[python]
    root = fetched("python", suite, f"python{python}-minimal", f"libpython{python}-minimal",
                   f"libpython{python}-stdlib", "zlib1g", "libexpat1")
    theirs = libraries(suite)
    path: list[Path] = [theirs, root / LIBRARIES, root / "usr" / LIBRARIES]
    words = [theirs / LOADER, "--library-path", ":".join(map(str, path)),
             root / "usr" / "bin" / f"python{python}"]
    return [str(word) for word in words], {**os.environ, "PYTHONHOME": str(root / "usr")}
