"""Folders and files of container engines, opened so that nothing in them can hurt whoever looks.

Some of them belong to ordinary users. So each file is read only if it is a plain file of bounded
size, no link is followed below the engine's own folder, all that is read of a user's is bounded as
well, and nothing is opened on a file system that may never answer.
"""

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from pagewalk.proc.engines import MOST
from pagewalk.proc.mounts import answered_elsewhere, real_path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not keep us

class Limit(NamedTuple):
    """How many bytes are read, and how many names in folders and records are looked at."""

    bytes: int
    rows: int


# Of one ordinary user; of all of them together; of root and us. A record takes half a kilobyte.
OF_USER = Limit(16 << 20, 2 * MOST)
OF_USERS = Limit(32 << 20, 4 * MOST)
OF_ROOT = Limit(256 << 20, 10 * MOST)


class Search:
    """One search for state files below ``root``, and sentences about what was not looked at.

    What was read of whom is counted, so that nobody can make it take long, nor much memory.
    """

    def __init__(self, root: str) -> None:
        self.root, self.apart = root, answered_elsewhere()
        self._skipped: dict[str, str] = {}
        self._used: dict[str, list[int]] = {}

    def take(self, uid: int, *, size: int = 0, rows: int = 0) -> bool:
        """Count what is about to be read of ``uid``, and return whether it is within all limits."""
        limits = {f"user {uid}": OF_USER, "ordinary users": OF_USERS}
        if uid in (0, os.geteuid()):
            limits = {"root": OF_ROOT}
        for whose, most in limits.items():
            used = self._used.setdefault(whose, [0, 0])
            used[0], used[1] = used[0] + size, used[1] + rows
            if used[0] > most.bytes or used[1] > most.rows:
                self._skipped[whose] = f"did not read all files of {whose}: more than" \
                    f" {most.bytes >> 20} MiB, or {most.rows} names"
                return False
        return True

    def skip(self, point: str) -> None:
        """Note that there is something at or below the mount point ``point``."""
        self._skipped[point] = f"did not look below {point}: a file system of type" \
            f" {self.apart[point]} may never answer"

    def said(self) -> list[str]:
        """Return a sentence for all that was not looked at, by mount point or owner."""
        return list(self._skipped.values())


class Folder(NamedTuple):
    """An open folder: ``stars`` is what the ``*`` of its place matched, ``real`` has no links."""

    fd: int
    path: str
    stars: tuple[str, ...]
    real: str


def opened(search: Search, folders: str, said: list[str]) -> Iterator[Folder]:
    """Yield each folder that ``folders`` matches; adds to ``said`` what could not be opened."""
    fixed, star, rest = folders.partition("*")
    fixed, _, begun = fixed.rpartition("/") if star else (folders, "", "")
    path = os.path.join(search.root, fixed)
    real, point = real_path(os.path.abspath(path), search.apart)
    if point:
        search.skip(point)
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return  # no such engine
    except OSError as error:
        said.append(refusal(path, error))
        return
    parts = f"{begun}{star}{rest}".split("/") if star else []
    try:
        yield from within(search, Folder(fd, path, (), real), parts, said)
    finally:
        os.close(fd)


def within(
    search: Search, folder: Folder, parts: list[str], said: list[str]
) -> Iterator[Folder]:
    if not parts:
        yield folder
        return
    _, star, end = parts[0].partition("*")
    names = named(search, folder, end, said) if star else parts[:1]
    for name in names:
        path, real = f"{folder.path}/{name}", f"{folder.real.rstrip('/')}/{name}"
        if real in search.apart:
            search.skip(real)
            continue
        try:
            fd = os.open(name, FOLDER, dir_fd=folder.fd)
        except (FileNotFoundError, NotADirectoryError):
            continue  # gone, or not a container's
        except OSError as error:
            said.append(refusal(path, error))
            continue
        stars = (*folder.stars, name) if star else folder.stars
        try:
            yield from within(search, Folder(fd, path, stars, real), parts[1:], said)
        finally:
            os.close(fd)


def named(search: Search, folder: Folder, end: str, said: list[str]) -> list[str]:
    # The names in a folder that end so: of one that anybody may fill, only so many are looked at.
    uid = os.fstat(folder.fd).st_uid
    if not search.take(uid):
        return []
    with os.scandir(folder.fd) as entries:
        names = [entry.name for entry in islice(entries, MOST + 1)]
    if not search.take(uid, rows=len(names)):
        return []
    if len(names) > MOST:
        said.append(f"cannot read all of {folder.path}: it has more than {MOST} entries")
    return [name for name in names[:MOST] if name.endswith(end)]


def read_file(search: Search, fd: int, name: str, largest: int) -> tuple[bytes, int]:
    """Return the contents of ``name`` below ``fd`` and its owner; raises OSError, ValueError.

    Raises LookupError if too much was read of its owner's files already.
    """
    with open(name, "rb", 0, opener=lambda path, _: os.open(path, FILE, dir_fd=fd)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a plain file")
        if found.st_size > largest:
            raise ValueError(f"is larger than {largest >> 20} MiB")
        if not search.take(found.st_uid, size=found.st_size):
            raise LookupError(name)
        data = file.read(found.st_size)
        return data, found.st_uid


def refusal(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return f"cannot read {path}: permission denied; run as root"
    if isinstance(error, OSError):
        link = error.errno == errno.ELOOP
        why = "it is a link" if link else (error.strerror or "no reason given").lower()
        return f"cannot read {path}: {why}"
    return f"cannot read {path}: it {error}"


