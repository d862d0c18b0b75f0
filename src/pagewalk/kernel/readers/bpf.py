"""Kernel memory through one generic eBPF program that reads given addresses and nothing else.

The program is the same on every kernel since 5.10 and every architecture: no struct offsets, no
BTF relocations, no kernel functions, only bpf_probe_read_kernel in a bounded loop. It is run by
BPF_PROG_TEST_RUN without being attached to any hook, and its results land in an array map that we
have mapped, so that numpy decodes them in place. It takes none of a process's locks.
"""

from __future__ import annotations

import errno as errnos
import os
import struct
from collections.abc import Iterator

import numpy as np

from pagewalk.kernel.bpf import asm, refusal
from pagewalk.kernel.bpf.asm import R0, R1, R2, R3, R4, R6, R7, R8, R9
from pagewalk.kernel.bpf.syscall import BPF_SYSCALL, create_array, load_program
from pagewalk.kernel.readers.memory import PAGE, Batch, refuse_address
from pagewalk.model.columns import I32, U32, U64
from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.kernel import architecture
from pagewalk.proc.rights import read_rights

# include/uapi/linux/bpf.h
_GET_CURRENT_TASK, _PROBE_READ_KERNEL = 35, 113

# The verifier walks the loop once per request, 9 ms for 1024; one run costs 3 us, so with this
# many each request costs 12 ns. The same number of pages fills the output.
REQUESTS = 256
# The output of one run; 1 MiB of page tables or struct pages fits in the L2 cache.
OUTPUT = 1 << 20

_REQUEST = struct.Struct("<QII")  # address, length, offset in the output


def reader_program(requests_fd: int, output_fd: int) -> bytes:
    """Assemble the program that uses these two maps.

    The requests map holds {u64 count, u64 current} and then one row {u64 address, u32 length,
    u32 place} per request; the program overwrites each address with the read's return value, 0 or a
    negative errno, and ``current`` with the address of the running task. It returns how many
    requests it served.
    """
    address, length, place = 0, 8, 12
    return asm.assemble(
        asm.map_value(R6, requests_fd),
        asm.map_value(R7, output_fd),
        asm.call(_GET_CURRENT_TASK),
        asm.store_u64(R6, 8, R0),
        asm.load_u64(R8, R6, 0),
        asm.move_imm(R9, 0),
        asm.Label("next"),
        asm.jump_ge(R9, R8, "done"),
        asm.add_imm(R6, 16),
        # The two bounds are for the verifier: the values that we write never exceed them (see
        # batches). Masks, because the verifier would follow both branches of a jump.
        asm.load_u32(R2, R6, length),
        asm.and_imm(R2, 2 * PAGE - 1),
        asm.load_u32(R4, R6, place),
        asm.and_imm(R4, OUTPUT - 1),
        asm.move(R1, R7),
        asm.add(R1, R4),
        asm.load_u64(R3, R6, address),
        asm.call(_PROBE_READ_KERNEL),
        asm.store_u64(R6, address, R0),
        asm.add_imm(R9, 1),
        asm.jump_lt_imm(R9, REQUESTS, "next"),
        asm.Label("done"),
        asm.move(R0, R9),
        asm.leave(),
    )


class BpfMemory:
    """A reader of kernel memory through bpf(2); see memory.KernelMemory.

    ``current`` is the address of the opening thread's task_struct. Raises SourceUnavailable with
    cause and remedy when the kernel refuses.
    """

    def __init__(self) -> None:
        machine = architecture()
        if machine not in BPF_SYSCALL:
            why = f"it does not support {machine} (only {', '.join(BPF_SYSCALL)})"
            raise SourceUnavailable("ebpf", why, "use --source procfs")
        self._fds: list[int] = []
        try:
            self._open()
            self._run(0)
        except OSError as error:
            self.close()
            raise refusal.explain(error, read_rights()) from error
        self.current = int(self._head[1])

    def _open(self) -> None:
        rows = create_array(_REQUEST.size * (REQUESTS + 1), "pagewalk_req")
        self._fds.append(rows.fd)
        output = create_array(OUTPUT + 2 * PAGE, "pagewalk_out")
        self._fds.append(output.fd)
        self._program = load_program(reader_program(rows.fd, output.fd), "pagewalk_read")
        self._fds.append(self._program.fd)
        self._rows, self._output = rows.data, output.data
        self._head = rows.data[:16].view(np.uint64)
        fields = np.dtype([("address", "u8"), ("length", "u4"), ("place", "u4")])
        table = rows.data[16:].view(fields)
        self._addresses, self._lengths = table["address"], table["length"]
        self._places, self._returns = table["place"], table["address"].view(np.int64)

    def _run(self, count: int) -> None:
        self._head[0] = count
        served = self._program.run()
        if served != count:
            raise OSError(f"the reader served {served} of {count} requests")

    def batches(self, addresses: U64, lengths: U32 | int) -> Iterator[Batch]:
        """See KernelMemory.batches; a bad address gets errno EFAULT (on 5.10 also ERANGE)."""
        if isinstance(lengths, int):
            yield from self._equal(addresses, lengths)
            return
        if lengths.max(initial=0) > PAGE:  # the program would read something else
            raise ValueError(f"a request of {lengths.max()} bytes, more than {PAGE}")
        ends = np.cumsum(lengths, dtype=np.int64)
        first = 0
        while first < len(addresses):
            begin = int(ends[first - 1]) if first else 0
            fits = int(np.searchsorted(ends, begin + OUTPUT, "right"))
            last = min(first + REQUESTS, fits)
            places = ends[first:last] - lengths[first:last]
            self._places[: last - first] = places - places[0]
            size = int(ends[last - 1] - places[0])
            yield self._batch(first, addresses[first:last], lengths[first:last], size)
            first = last

    def _equal(self, addresses: U64, length: int) -> Iterator[Batch]:
        if not 0 < length <= PAGE:
            raise ValueError(f"requests of {length} bytes, more than {PAGE}")
        each = min(REQUESTS, OUTPUT // length)
        for first in range(0, len(addresses), each):
            here = addresses[first : first + each]
            self._places[: len(here)] = np.arange(0, len(here) * length, length)
            yield self._batch(first, here, length, len(here) * length)

    def _batch(self, first: int, addresses: U64, lengths: U32 | int, size: int) -> Batch:
        count = len(addresses)
        self._addresses[:count] = addresses
        self._lengths[:count] = lengths
        self._run(count)
        errno: I32 = (-self._returns[:count]).astype(np.int32)
        return Batch(first, self._output[:size], errno)

    def read(self, address: int, size: int) -> bytes:
        """Read one block; see KernelMemory.read."""
        if not (0 <= address < 1 << 64 and 0 <= size <= PAGE):
            raise refuse_address(address, errnos.EFAULT)
        _REQUEST.pack_into(self._rows.data, _REQUEST.size, address, size, 0)
        self._run(1)
        result = int(self._returns[0])
        if result:
            raise refuse_address(address, -result)
        return self._output[:size].tobytes()

    def close(self) -> None:
        """Close the program and the maps; views handed out earlier stay valid."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        # A mapping is unmapped with its last view.
        for name in ("_rows", "_head", "_addresses", "_lengths", "_places", "_returns", "_output"):
            self.__dict__.pop(name, None)
