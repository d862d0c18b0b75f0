"""Read the kernel's small files whole, and parse the text in them as bytes.

A process may put any bytes in its name, in the paths it maps and, in a user namespace, in its mount
points. The kernel escapes only what would end the field; ``splitlines``, ``split`` and ``strip``
treat more than that as structure (``\\r``, ``\\x0b``, ``\\x0c``, ``\\x1c``, U+0085), and decoding
fails on anything that is not UTF-8. So here a line ends at ``\\n``, a field at a blank, and only
names are decoded, as the last step. (Importing pathlib would take 6 ms.)
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pagewalk.model.errors import BadText, SourceUnavailable

TOO_MANY = (errno.EMFILE, errno.ENFILE)  # open files: nobody forbids anything
HIDDEN = "it is empty: something else is mounted on it"  # with ENODATA
LARGEST = 1 << 16  # bytes that are asked for at a time
BLANK = re.compile(rb"[ \t]+")
Parsed = TypeVar("Parsed")


@dataclass(eq=False)
class Last(Generic[Parsed]):
    """The text that was parsed last: while a process is idle, the next one is the same."""

    text: bytes = b""
    parsed: Parsed | None = None

    def parse(self, text: bytes, parser: Callable[[bytes], Parsed]) -> Parsed:
        """Return ``text`` as parsed by ``parser``, the same object for the same text."""
        if self.parsed is None or text != self.text:
            self.text, self.parsed = text, parser(text)
        return self.parsed


def read_bytes(path: str, dir_fd: int | None = None) -> bytes:
    """Return the contents of ``path``, below the directory ``dir_fd`` if given; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        parts = []  # a file object would take twice as long, and there are many small files
        while part := os.read(fd, LARGEST):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


@contextmanager
def named(path: str) -> Iterator[int]:
    """Yield a descriptor that names ``path`` without opening it (O_PATH); raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read_for_all(path: str, otherwise: str = "mount /proc without subset=pid") -> bytes:
    """Return the contents of ``path``, a file about the whole machine; raises SourceUnavailable.

    The error is about a source of the file's name; ``otherwise`` is what to do if it is not a
    matter of rights. A container may have such a file hidden by an empty one.
    """
    try:
        text = read_bytes(path)
        if not text:
            raise OSError(errno.ENODATA, HIDDEN, path)
        return text
    except OSError as error:
        remedy = to_do(error, otherwise)
        why = f"cannot read {path}: {error.strerror}"
        raise SourceUnavailable(path.rpartition("/")[2], why, remedy) from error


def to_do(error: OSError, otherwise: str) -> str:
    """Return what to do about ``error``: ``otherwise``, if it is no matter of rights or limits."""
    if error.errno == errno.ENODATA:
        return "unmount that, or run on the host"
    if error.errno in TOO_MANY:
        return "raise the limit (ulimit -n, sysctl fs.file-max)"
    return "run as root" if isinstance(error, PermissionError) else otherwise


def lines(text: bytes, file: str) -> list[bytes]:
    """Return the lines of ``text``, read from ``file``, without their newlines.

    Raises BadText if the last line has none: the kernel always writes one, so the text is cut off.
    """
    *whole, rest = text.split(b"\n")
    if rest:
        raise BadText(file, len(whole) + 1, rest)
    return whole


def rows(line: re.Pattern[bytes], text: bytes, file: str) -> list[tuple[bytes, ...]]:
    """Return the groups of ``line`` in each line of ``text``, read from ``file``.

    ``line`` matches a whole line, from ``^`` to its newline, and has two groups or more. Raises
    BadText for the first line that it does not match.
    """
    found: list[tuple[bytes, ...]] = line.findall(text)
    if len(found) != text.count(b"\n") or text[-1:] not in (b"", b"\n"):
        for number, part in enumerate(lines(text, file), 1):
            if not line.fullmatch(part + b"\n"):
                raise BadText(file, number, part)
    return found


def words(line: bytes) -> list[bytes]:
    """Return the fields of ``line``, separated by blanks and tabs."""
    return [word for word in BLANK.split(line) if word]


def numbers(text: bytes, field: bytes, base: int = 10) -> list[int]:
    """Return the numbers in line ``field`` of a status file, none if there is no such line.

    If two lines have the same name, the first counts. Raises BadText.
    """
    for at, line in enumerate(lines(text, "status"), 1):
        key, _, value = line.partition(b":")
        if key == field:
            try:
                return [number(word, base) for word in words(value.removesuffix(b" kB"))]
            except ValueError:
                raise BadText("status", at, line) from None
    return []


def number(word: bytes, base: int = 10) -> int:
    """Return the number of at most 64 bits that ``word`` spells; raises ValueError.

    int() alone would also accept a sign, underscores and white space.
    """
    value = int(word, base) if word.isalnum() else -1
    if not 0 <= value < 1 << 64:
        raise ValueError(word)
    return value


def decode_name(raw: bytes) -> str:
    """Return the name that the kernel gives as ``raw``; os.fsencode() gives the bytes back."""
    return raw.decode("utf-8", "surrogateescape")
