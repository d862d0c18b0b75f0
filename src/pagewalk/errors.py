"""Every error pagewalk raises on purpose.

::

    PagewalkError                 exit 1
    +-- BadTarget                 exit 2   the name or number names no single process
    +-- BadRequest                exit 2   a range, filter or option that cannot be
    +-- ProcessGone               exit 5   the target ended, or became another program
    +-- NoAddressSpace            exit 1   a kernel thread or a zombie: there is no memory to show
    +-- NotPermitted              exit 6   the kernel said no
    +-- SourceUnavailable         exit 1   this machine or these rights cannot serve that source
        +-- NotInBtf              exit 1   this kernel's BTF lacks what that source needs
    +-- BadTable                  exit 1   a page table that no kernel would write
    +-- BadText                   exit 1   a file of /proc that is not as documented
    +-- Unsupported               exit 1   this kernel lacks the interface

Form of a message: what was tried, what the kernel said, what to do; lower case, no full stop.
"""

from __future__ import annotations


class PagewalkError(Exception):
    """Base of every error that pagewalk raises on purpose; ``exit_code`` is the command's."""

    exit_code = 1


class BadTarget(PagewalkError):
    """Raised when TARGET names no process, or more than one; ``candidates`` holds (pid, name)."""

    exit_code = 2

    def __init__(self, message: str, candidates: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class BadRequest(PagewalkError):
    """Raised when a range, a filter or an option cannot mean anything for this target."""

    exit_code = 2


class ProcessGone(PagewalkError):
    """Raised when process ``pid`` ended, or exec'ed another program, before the work was done."""

    exit_code = 5

    def __init__(self, pid: int, what: str) -> None:
        super().__init__(f"process {pid} {what}")
        self.pid = pid
        self.what = what


class NoAddressSpace(PagewalkError):
    """Raised when process ``pid`` has no memory of its own: a kernel thread or a zombie."""

    def __init__(self, pid: int, why: str) -> None:
        super().__init__(f"process {pid} {why}")
        self.pid = pid
        self.why = why


class NotPermitted(PagewalkError):
    """Raised when the kernel refuses ``what``; ``says`` is its answer, ``remedy`` the way out."""

    exit_code = 6

    def __init__(self, what: str, says: str, remedy: str) -> None:
        super().__init__(f"{what}: {says}; {remedy}")
        self.what = what
        self.says = says
        self.remedy = remedy


class SourceUnavailable(PagewalkError):
    """Raised when ``source`` cannot work here, with the reason and the remedy."""

    def __init__(self, source: str, why: str, remedy: str) -> None:
        super().__init__(f"source '{source}' is not available: {why}; {remedy}")
        self.source = source
        self.why = why
        self.remedy = remedy


class NotInBtf(SourceUnavailable, LookupError):
    """Raised when the kernel's description of its structs, BTF, has no ``missing``."""

    def __init__(self, missing: str) -> None:
        super().__init__("btf", f"this kernel's BTF has no {missing}", "use --source procfs")
        self.missing = missing


class BadTable(PagewalkError):
    """Raised for a page-table entry no kernel writes; the walk goes on beside it.

    ``level`` is the level's name (PGD...PTE), ``addr`` the virtual address in bytes the entry
    maps, ``entry`` the raw word.
    """

    def __init__(self, level: str, addr: int, entry: int, why: str) -> None:
        super().__init__(f"{level} entry {entry:#018x} at {addr:#x}: {why}")
        self.level = level
        self.addr = addr
        self.entry = entry
        self.why = why


class BadText(PagewalkError):
    """Raised for a line of ``file`` that is not as the kernel documents it.

    ``line`` is its number, from 1; ``text`` is the start of it, as a Python literal.
    """

    def __init__(self, file: str, line: int, text: bytes) -> None:
        self.file = file
        self.line = line
        self.text = repr(text[:60])[1:]
        super().__init__(
            f"cannot make sense of line {line} of {file}: {self.text}; report it with that file"
        )


class Unsupported(PagewalkError):
    """Raised when this kernel lacks ``what``, which came ``since`` a release."""

    def __init__(self, what: str, since: str) -> None:
        super().__init__(f"this kernel has no {what} (since {since})")
        self.what = what
        self.since = since
