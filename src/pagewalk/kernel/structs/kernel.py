"""An open kernel: a reader of its memory, and BTF, its own description of its structs."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from numpy.typing import NDArray

from pagewalk.kernel.readers.memory import KernelMemory, read_bytes
from pagewalk.kernel.structs.btf import Btf, Member
from pagewalk.model.columns import U8
from pagewalk.model.errors import NotInBtf

_LARGEST = 1 << 20  # bytes: far above any struct's size


class Kernel(NamedTuple):
    """What it takes to read the kernel's structs.

    ``current`` is the kernel address of a task_struct of this process. PIDs are looked up in its
    namespace, so that they mean the same here as to the caller. ``held`` closes the reader and
    whatever else was opened for this kernel.
    """

    memory: KernelMemory
    btf: Btf
    current: int
    held: ExitStack

    def field(self, struct: str, address: int, path: str) -> int:
        """Read member ``path`` of the ``struct`` at ``address`` as an unsigned integer.

        Raises OSError when the memory cannot be read, NotInBtf if there is no such member.
        """
        return self.fields(struct, address, (path,))[path]

    def fields(self, struct: str, address: int, paths: Iterable[str]) -> dict[str, int]:
        """Read several members of one struct in a single read, as unsigned integers by path."""
        members = {path: self._integer(struct, path) for path in paths}
        low = min(member.offset for member in members.values())
        high = max(member.offset + member.size for member in members.values())
        data = read_bytes(self.memory, address + low, high - low)
        return {
            path: int.from_bytes(data[m.offset - low : m.offset - low + m.size], "little")
            for path, m in members.items()
        }

    def column(self, rows: U8, struct: str, path: str) -> NDArray[Any]:
        """Return a view of member ``path`` in ``rows`` (u8[n, sizeof struct]), unsigned[n]."""
        member = self._integer(struct, path)
        cells = rows[:, member.offset : member.offset + member.size]
        return cells.view(f"<u{member.size}")[:, 0]

    def _integer(self, struct: str, path: str) -> Member:
        member = self.btf.member(struct, path)
        if member.size not in (1, 2, 4, 8) or member.offset > _LARGEST:
            raise NotInBtf(f"integer {path} in {struct}")
        return member

    def close(self) -> None:
        """Close what was opened for this kernel; closing it again does nothing."""
        self.held.close()
