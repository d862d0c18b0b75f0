"""Kernel memory through drgn: /proc/kcore and every crash dump format that drgn reads, no symbols.

drgn is an optional extra: it is imported only here, and only when asked for.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterator
from typing import Any

import numpy as np

from pagewalk.kernel.readers.kcore import PATH, explain
from pagewalk.kernel.readers.memory import Batch, refuse_address
from pagewalk.model.columns import U32, U64
from pagewalk.model.errors import SourceUnavailable, how_to_install

_BATCH_ROWS = 256


class DrgnMemory:
    """A reader of kernel memory through ``program``, a drgn.Program; see memory.KernelMemory."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._fault: type[Exception] = _import_drgn().FaultError

    def read(self, address: int, size: int) -> bytes:
        """Read one block; see KernelMemory.read."""
        try:
            return bytes(self._program.read(address, size))
        except (self._fault, OverflowError) as error:
            raise refuse_address(address, errnos.EFAULT) from error

    def batches(self, addresses: U64, lengths: U32 | int) -> Iterator[Batch]:
        """See KernelMemory.batches; drgn takes one address per call."""
        lengths = np.broadcast_to(np.uint32(lengths), len(addresses))
        for first in range(0, len(addresses), _BATCH_ROWS):
            rows = slice(first, first + _BATCH_ROWS)
            pairs = list(zip(addresses[rows].tolist(), lengths[rows].tolist(), strict=True))
            parts, errno = [], np.zeros(len(pairs), np.int32)
            for row, (address, length) in enumerate(pairs):
                try:
                    parts.append(self.read(address, length))
                except OSError as error:
                    parts.append(bytes(length))
                    errno[row] = error.errno or errnos.EIO
            yield Batch(first, np.frombuffer(b"".join(parts), np.uint8), errno)

    def close(self) -> None:
        """Drop the program."""
        self._program = None


def open_drgn(core: str | None = None) -> DrgnMemory:
    """Open the running kernel, or the crash dump ``core``, through drgn.

    Raises SourceUnavailable when drgn is not installed or refuses, with the remedy.
    """
    drgn = _import_drgn()
    program = drgn.Program()
    try:
        if core is None:
            program.set_kernel()
        else:
            program.set_core_dump(core)
    except (OSError, ValueError, LookupError) as error:
        if core is None and isinstance(error, OSError):
            raise explain(PATH, error, "drgn") from error
        what = core or PATH
        raise SourceUnavailable(
            "drgn", f"drgn cannot open {what}: {error}", "run as root, or use --source ebpf"
        ) from error
    return DrgnMemory(program)


def _import_drgn() -> Any:
    try:
        import drgn
    except ImportError as error:
        raise SourceUnavailable(
            "drgn", "drgn is not installed", how_to_install("drgn")) from error
    return drgn
