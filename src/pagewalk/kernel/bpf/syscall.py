"""bpf(2): array maps that numpy can see, and loading and running programs, whatever they do."""

import ctypes
import mmap
import os
import resource
import struct
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U8
from pagewalk.proc.kernel import architecture

# bpf(2)'s number; include/uapi/asm-generic/unistd.h for the two newer architectures.
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}

# include/uapi/linux/bpf.h
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_GET_NEXT_ID, _MAP_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD = 12, 14, 15
_F_RDONLY = 1 << 3
_MAP_TYPE_ARRAY, _F_MMAPABLE = 2, 1 << 10
# SYSCALL programs would do too, but are new in 5.14; RAW_TRACEPOINT can be test-run since 5.10.
_PROG_TYPE_RAW_TRACEPOINT = 17

_ATTR_BYTES = 128
_RUN_ATTR_BYTES = 80  # up to and including the batch_size of BPF_PROG_TEST_RUN

_libc = ctypes.CDLL(None, use_errno=True)


class Array(NamedTuple):
    """An array map of one value, mapped into this process: ``data`` (u8) is what programs see.

    The mapping lives as long as any view of it; the creator closes ``fd``.
    """

    fd: int
    data: U8


def create_array(size: int, name: str) -> Array:
    """Create an array map of one value of ``size`` bytes; raises OSError."""
    _raise_memlock()
    fields = (_MAP_TYPE_ARRAY, 4, size, 1, _F_MMAPABLE, 0, 0, name.encode())
    fd = _bpf("bpf(BPF_MAP_CREATE)", _MAP_CREATE, _attr(struct.pack("<7I16s", *fields)))
    try:
        view = mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    except OSError:
        os.close(fd)
        raise
    return Array(fd, np.frombuffer(view, np.uint8, size))


class Program(NamedTuple):
    """A loaded program, not attached to any hook; its loader closes ``fd``."""

    fd: int
    attr: ctypes.Array[ctypes.c_char]

    def run(self) -> int:
        """Run it once, on this CPU, and return its return value (u32); raises OSError."""
        _bpf("bpf(BPF_PROG_TEST_RUN)", _PROG_TEST_RUN, self.attr, _RUN_ATTR_BYTES)
        result: int = struct.unpack_from("<I", self.attr, 4)[0]
        return result

    def run_with(self, *context: int) -> None:
        """Run it once, on this CPU, with the u64 values of ``context``; raises OSError."""
        given = (ctypes.c_uint64 * len(context))(*context)
        fields = (self.fd, ctypes.sizeof(given), ctypes.addressof(given))
        attr = _attr(struct.pack("<I36xI4xQ", *fields))
        _bpf("bpf(BPF_PROG_TEST_RUN)", _PROG_TEST_RUN, attr, _RUN_ATTR_BYTES)


def load_program(code: bytes, name: str) -> Program:
    """Load ``code``; raises OSError with the verifier's errno."""
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")  # bpf_probe_read_kernel is for GPL programs
    count = len(code) // 8
    places = (ctypes.addressof(text), ctypes.addressof(licence))
    fields = (_PROG_TYPE_RAW_TRACEPOINT, count, *places, 0, 0, 0, 0, 0, name.encode())
    fd = _bpf("bpf(BPF_PROG_LOAD)", _PROG_LOAD, _attr(struct.pack("<IIQQIIQII16s", *fields)))
    return Program(fd, _attr(struct.pack("<I", fd)))


def next_map(after: int) -> int | None:
    """Return the id of the first map with a greater id, None if there is none; raises OSError."""
    attr = _attr(struct.pack("<I", after))
    try:
        _bpf("bpf(BPF_MAP_GET_NEXT_ID)", _MAP_GET_NEXT_ID, attr)
    except FileNotFoundError:
        return None
    number: int = struct.unpack_from("<I", attr, 4)[0]
    return number


def open_map(number: int) -> int:
    """Return a descriptor of the map with that id, to read; raises OSError."""
    attr = _attr(struct.pack("<III", number, 0, _F_RDONLY))
    return _bpf("bpf(BPF_MAP_GET_FD_BY_ID)", _MAP_GET_FD_BY_ID, attr)


def map_name(fd: int) -> bytes:
    """Return the name of the map behind ``fd``, at most 15 bytes; raises OSError."""
    info = ctypes.create_string_buffer(40)  # struct bpf_map_info: six numbers, then the name
    attr = _attr(struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)))
    _bpf("bpf(BPF_OBJ_GET_INFO_BY_FD)", _OBJ_GET_INFO_BY_FD, attr)
    return info.raw[24:].partition(b"\0")[0]


def _attr(fields: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(fields, _ATTR_BYTES)


_NUMBER = BPF_SYSCALL.get(architecture(), -1)


def _bpf(
    what: str, command: int, attr: ctypes.Array[ctypes.c_char], size: int = _ATTR_BYTES
) -> int:
    result: int = _libc.syscall(_NUMBER, command, attr, size)
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _raise_memlock() -> None:
    # Up to 5.10 the maps are charged to RLIMIT_MEMLOCK, 64 KiB by default; later to the memcg.
    # Without the right to raise the hard limit, we make do with that.
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limits in (unlimited, (hard, hard)):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
            return
