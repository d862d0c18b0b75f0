"""Every error pagewalk raises on purpose.

::

    PagewalkError                 exit 1
    +-- BadTarget                 exit 2   TARGET does not name exactly one process or cgroup
    +-- BadRequest                exit 2   an invalid range, filter or option
    +-- ProcessGone               exit 5   the target exited, or executed another program
    +-- GroupGone                 exit 5   a cgroup was removed
    +-- NoAddressSpace            exit 1   a kernel thread or a zombie, which has no memory
    +-- NotPermitted              exit 6   the kernel refused
    +-- SourceUnavailable         exit 1   the source does not work here
        +-- NotInBtf              exit 1   this kernel's BTF lacks what that source needs
    +-- BadTable                  exit 1   a malformed page-table entry
    +-- BadText                   exit 1   a file in /proc that is not as documented
    +-- Unsupported               exit 1   this kernel lacks the interface
    +-- NotStopped                exit 1   a thread of the target did not stop in time
    +-- PackageMissing            exit 1   an optional package is not installed
    +-- NotStarted                exit 126 a command cannot be executed
        +-- NoSuchCommand         exit 127 it does not exist
    +-- BadRecording              exit 1   a file is no recording, is cut, or is newer than this
    +-- NotRecorded               exit 1   a recording does not have what was asked for

Form of a message: what was tried, what the kernel said, what to do; lower case, no full stop.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def how_to_install(package: str) -> str:
    """Return the command that installs ``package`` for this Python, which may not have a pip."""
    import shlex
    from importlib.util import find_spec

    python = shlex.quote(sys.executable)
    if find_spec("pip") is None:  # as uv makes environments
        return f"uv pip install --python {python} {package}"
    return f"{python} -m pip install {package}"


def in_a_line(word: str) -> str:
    """Return a name as a message may have it, whose lines are our own."""
    return word.replace("\n", "\\n")


# What a full or broken disk says.
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name ``path`` in what a full disk says to write(2), which names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in OF_DISK:
            error.filename = path
        raise



class PagewalkError(Exception):
    """Base of every error that pagewalk raises on purpose; ``exit_code`` is the command's."""

    exit_code = 1


class BadTarget(PagewalkError):
    """Raised when TARGET does not name exactly one process or cgroup.

    ``candidates`` holds (pid, name), or (inode, path) of cgroups.
    """

    exit_code = 2

    def __init__(self, message: str, candidates: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class BadRequest(PagewalkError):
    """Raised when a range, filter or option makes no sense for this target."""

    exit_code = 2


class ProcessGone(PagewalkError):
    """Raised when process ``pid`` exited or executed another program before the work was done."""

    exit_code = 5

    def __init__(self, pid: int, what: str) -> None:
        super().__init__(f"process {pid} {what}")
        self.pid, self.what = pid, what


class GroupGone(PagewalkError):
    """Raised when cgroup ``path`` is not there, or was removed before the work was done."""

    exit_code = 5

    def __init__(self, path: str) -> None:
        super().__init__(f"cgroup {path} does not exist, or was removed meanwhile")
        self.path = path


class NoAddressSpace(PagewalkError):
    """Raised when process ``pid`` has no memory of its own: a kernel thread or a zombie."""

    def __init__(self, pid: int, why: str) -> None:
        super().__init__(f"process {pid} {why}")
        self.pid, self.why = pid, why


class NotPermitted(PagewalkError):
    """Raised when the kernel refuses ``what``; ``says`` is the cause, ``remedy`` the way out."""

    exit_code = 6

    def __init__(self, what: str, says: str, remedy: str) -> None:
        super().__init__(f"{what}: {says}; {remedy}")
        self.what, self.says, self.remedy = what, says, remedy


class SourceUnavailable(PagewalkError):
    """Raised when ``source`` does not work here, with the reason and the remedy."""

    def __init__(self, source: str, why: str, remedy: str) -> None:
        super().__init__(f"source '{source}' is not available: {why}; {remedy}")
        self.source, self.why, self.remedy = source, why, remedy


class NotInBtf(SourceUnavailable, LookupError):
    """Raised when the kernel's BTF, the description of its structures, lacks ``missing``."""

    def __init__(self, missing: str) -> None:
        super().__init__("btf", f"this kernel's BTF has no {missing}", "use --source procfs")
        self.missing = missing


class BadTable(PagewalkError):
    """Raised for a malformed page-table entry; the walk continues with the next one.

    ``level`` is the level's name (PGD...PTE), ``addr`` the virtual address in bytes that the
    entry maps, ``entry`` the raw word.
    """

    def __init__(self, level: str, addr: int, entry: int, why: str) -> None:
        super().__init__(f"{level} entry {entry:#018x} at {addr:#x}: {why}")
        self.level, self.addr, self.entry, self.why = level, addr, entry, why


class BadText(PagewalkError):
    """Raised for a line of ``file`` that does not have the documented form.

    ``line`` is its number, from 1; ``text`` is the beginning of it, as a Python literal.
    """

    def __init__(self, file: str, line: int, text: bytes) -> None:
        self.file, self.line, self.text = file, line, repr(text[:60])[1:]
        super().__init__(
            f"cannot parse line {line} of {file}: {self.text}; please report this with that file"
        )


class Unsupported(PagewalkError):
    """Raised when this kernel lacks ``what``, which was added in release ``since``."""

    def __init__(self, what: str, since: str) -> None:
        super().__init__(f"this kernel has no {what} (since {since})")
        self.what, self.since = what, since


class NotStopped(PagewalkError):
    """Raised when a thread of the target did not stop in time; the target has been resumed."""


class PackageMissing(PagewalkError):
    """Raised when ``what`` needs ``package``, which is in no index together with pagewalk."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f"{what} needs the package {package}, which is not installed;"
                         f" {how_to_install(package)}")
        self.what, self.package = what, package


class NotStarted(PagewalkError):
    """Raised when ``command`` could not be executed; the exit codes are those of a shell."""

    exit_code = 126

    def __init__(self, command: str, says: str, remedy: str) -> None:
        super().__init__(f"cannot start '{in_a_line(command)}': {says}; {remedy}")
        self.command, self.says, self.remedy = command, says, remedy


class NoSuchCommand(NotStarted):
    """Raised when ``command`` does not exist."""

    exit_code = 127


class BadRecording(PagewalkError):
    """Raised when file ``path`` cannot be read as a recording, with the reason."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"cannot read {in_a_line(path)} as a recording: {in_a_line(why)}")
        self.path, self.why = path, why


class NotRecorded(PagewalkError):
    """Raised when recording ``path`` does not have ``what``, with the reason and the remedy."""

    def __init__(self, path: str, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{in_a_line(path)} does not have {what}: {why}; {remedy}")
        self.path, self.what, self.why, self.remedy = path, what, why, remedy
