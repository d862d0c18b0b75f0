"""Kernel memory through one generic eBPF program: "read these addresses", and nothing else.

The program is the same on every kernel since 5.10 and every architecture: no struct offsets, no
BTF relocations, no kernel functions, only bpf_probe_read_kernel in a bounded loop. It is run by
BPF_PROG_TEST_RUN, attached to nothing, and its results land in an array map that is mapped here,
so that numpy decodes them where the kernel wrote them. No lock of any process is taken.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import mmap
import os
import platform
import resource
import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from pagewalk.kmem import asm, refusal
from pagewalk.kmem.asm import R0, R1, R2, R3, R4, R6, R7, R8, R9
from pagewalk.kmem.memory import I32, PAGE, Batch, refuse_address
from pagewalk.pages import I64, U8, U32, U64

# include/uapi/linux/bpf.h
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_TYPE_ARRAY, _F_MMAPABLE = 2, 1 << 10
# SYSCALL programs would do too, but came in 5.14; a RAW_TRACEPOINT one can be test-run since 5.10.
_PROG_TYPE_RAW_TRACEPOINT = 17
_GET_CURRENT_TASK, _PROBE_READ_KERNEL = 35, 113

# The verifier walks the loop once per request, 17 ms for 1024; one run costs 3 us, so that more
# requests a run would gain 3 ns each.
REQUESTS = 1024
# The output of one run; 1 MiB of page tables or struct pages stays in the second-level cache.
OUTPUT = 1 << 20

_REQUEST = struct.Struct("<QII")  # address, length, place in the output

_ATTR_BYTES = 128
_RUN_ATTR_BYTES = 80  # up to and with the batch_size of BPF_PROG_TEST_RUN


def reader_program(requests_fd: int, output_fd: int) -> bytes:
    """Assemble the program over its two maps.

    The requests map holds {u64 count, u64 current} and then one row {u64 address, u32 length,
    u32 place} per request; the program overwrites the address by the read's return value, 0 or a
    negative errno, and ``current`` by the address of the running task. It returns how many
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
        # The two bounds are for the verifier: what we write ourselves never exceeds them.
        asm.load_u32(R2, R6, length),
        asm.jump_gt_imm(R2, PAGE, "done"),
        asm.load_u32(R4, R6, place),
        asm.jump_gt_imm(R4, OUTPUT, "done"),
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
    """Read kernel memory by bpf(2); see memory.KernelMemory.

    ``current`` is the address of the opening thread's task_struct. Raises SourceUnavailable with
    the cause and the remedy when the kernel refuses.
    """

    def __init__(self) -> None:
        machine = platform.machine()
        if machine not in refusal.BPF_SYSCALL:
            raise refusal.refuse_machine(machine)
        self._fds: list[int] = []
        self._maps: list[mmap.mmap] = []
        try:
            self._open()
            self._run(0)
        except OSError as error:
            self.close()
            raise refusal.explain(error, refusal.read_rights()) from error
        self.current = int(self._head[1])

    def _open(self) -> None:
        _raise_memlock()
        rows_fd = self._array_map(_REQUEST.size * (REQUESTS + 1), b"pagewalk_req")
        output_fd = self._array_map(OUTPUT + PAGE, b"pagewalk_out")
        self._program = _load(reader_program(rows_fd, output_fd))
        self._fds.append(self._program)
        rows = self._mapped(rows_fd, _REQUEST.size * (REQUESTS + 1))
        self._rows = rows
        self._head = rows[:16].view(np.uint64)
        table = rows[16:].view(np.dtype([("address", "u8"), ("length", "u4"), ("place", "u4")]))
        self._addresses, self._lengths = table["address"], table["length"]
        self._places, self._returns = table["place"], table["address"].view(np.int64)
        self._output = self._mapped(output_fd, OUTPUT + PAGE)
        self._attr = _attr(struct.pack("<I", self._program))

    def _array_map(self, size: int, name: bytes) -> int:
        fields = (_MAP_TYPE_ARRAY, 4, size, 1, _F_MMAPABLE, 0, 0, name)
        fd = _bpf("bpf(BPF_MAP_CREATE)", _MAP_CREATE, _attr(struct.pack("<7I16s", *fields)))
        self._fds.append(fd)
        return fd

    def _mapped(self, fd: int, size: int) -> U8:
        view = mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._maps.append(view)
        return np.frombuffer(view, np.uint8, size)

    def _run(self, count: int) -> None:
        self._head[0] = count
        _bpf("bpf(BPF_PROG_TEST_RUN)", _PROG_TEST_RUN, self._attr, _RUN_ATTR_BYTES)
        served = struct.unpack_from("<I", self._attr, 4)[0]
        if served != count:
            raise OSError(f"the reader served {served} of {count} requests")

    def batches(self, addresses: U64, lengths: U32) -> Iterator[Batch]:
        """Read as KernelMemory.batches says; errno EFAULT (5.10: also ERANGE) per bad address."""
        ends = np.cumsum(lengths, dtype=np.int64)
        first = 0
        while first < len(addresses):
            begin = int(ends[first - 1]) if first else 0
            fits = int(np.searchsorted(ends, begin + OUTPUT, "right"))
            last = min(first + REQUESTS, fits)
            if last == first:
                raise ValueError(f"a request of {lengths[first]} bytes, more than {PAGE}")
            yield self._batch(first, last, addresses, lengths, ends)
            first = last

    def _batch(self, first: int, last: int, addresses: U64, lengths: U32, ends: I64) -> Batch:
        count = last - first
        here = lengths[first:last]
        places = ends[first:last] - here
        self._addresses[:count] = addresses[first:last]
        self._lengths[:count] = here
        self._places[:count] = places - places[0]
        self._run(count)
        errno: I32 = (-self._returns[:count]).astype(np.int32)
        return Batch(first, self._output[: int(ends[last - 1] - places[0])], errno)

    def read(self, address: int, size: int) -> bytes:
        """Read one block as KernelMemory.read says."""
        if not (0 <= address < 1 << 64 and 0 <= size <= PAGE):
            raise refuse_address(address, errnos.EFAULT)
        _REQUEST.pack_into(self._rows.data, _REQUEST.size, address, size, 0)
        self._run(1)
        result = int(self._returns[0])
        if result:
            raise refuse_address(address, -result)
        return self._output[:size].tobytes()

    def close(self) -> None:
        """Close the program and the maps; views handed out before keep their pages alive."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        # A mapping goes when its last view goes: mmap.close() would refuse while one is left.
        self._maps.clear()
        for name in ("_rows", "_head", "_addresses", "_lengths", "_places", "_returns", "_output"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> BpfMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_libc = ctypes.CDLL(None, use_errno=True)


def _attr(fields: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(fields, _ATTR_BYTES)


def _bpf(
    what: str, command: int, attr: ctypes.Array[ctypes.c_char], size: int = _ATTR_BYTES
) -> int:
    result: int = _libc.syscall(refusal.BPF_SYSCALL[platform.machine()], command, attr, size)
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _load(code: bytes) -> int:
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")  # bpf_probe_read_kernel is for GPL programs
    count = len(code) // 8
    places = (ctypes.addressof(text), ctypes.addressof(licence))
    fields = (_PROG_TYPE_RAW_TRACEPOINT, count, *places, 0, 0, 0, 0, 0, b"pagewalk_read")
    return _bpf("bpf(BPF_PROG_LOAD)", _PROG_LOAD, _attr(struct.pack("<IIQQIIQII16s", *fields)))


def _raise_memlock() -> None:
    # Up to 5.10 the maps are charged to RLIMIT_MEMLOCK, 64 KiB by default; later to the memcg.
    # Without the right to raise the hard limit, its value has to do.
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limits in (unlimited, (hard, hard)):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
            return
