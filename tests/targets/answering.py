"""A program that answers on its standard output, a JSON object a line, whenever it is asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answering:
    """A running one; what it understands is said in its source."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Return its number."""
        return self.process.pid

    def ask(self, word: str) -> dict[str, int]:
        """Return its answer to ``word``."""
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode())
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, int]:
        """Return the numbers that it writes next."""
        assert self.process.stdout is not None
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def answering(
    words: Sequence[str | Path], **variables: str
) -> Iterator[tuple[Answering, dict[str, int]]]:
    """Run a program until the block ends; yield it, and what it says when it is ready."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env={**os.environ, **variables})
    try:
        found = Answering(process)
        yield found, found.hear()
    finally:
        process.kill()
        process.wait()
