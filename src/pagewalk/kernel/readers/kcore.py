"""Kernel memory through /proc/kcore, the running kernel as an ELF core file, read with pread.

It needs CAP_SYS_RAWIO but no BPF. What the kernel itself cannot read reads as zeros rather than
failing (fs/proc/kcore.c, read_kcore_iter): only addresses outside every segment are refused.
"""

from __future__ import annotations

import errno as errnos
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import Batch, refuse_address
from pagewalk.model.columns import I32, I64, U8, U32, U64
from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.files import decode_name
from pagewalk.proc.refusals import why_missing
from pagewalk.proc.rights import read_rights

PATH = "/proc/kcore"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bit, little endian
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_BATCH_BYTES = 1 << 20
_NOTE_BYTES = 1 << 20  # the kernel's notes take a few kilobytes
_LAST_BYTE = (1 << 63) - 1  # the largest file offset: offsets are signed


class Segments(NamedTuple):
    """The PT_LOAD segments in ascending order of address, as u64 columns in bytes.

    [``start``, ``end``) are kernel addresses; ``place`` is the segment's offset in the file.
    """

    start: U64
    end: U64
    place: U64


class KcoreMemory:
    """A reader of kernel memory through /proc/kcore; see memory.KernelMemory.

    ``vmcoreinfo`` holds the VMCOREINFO lines ({"OSRELEASE": "6.1.0", ...}), empty when there are
    none. Raises SourceUnavailable with cause and remedy when ``path`` cannot be opened or is not a
    core file.
    """

    def __init__(self, path: str = PATH) -> None:
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.segments, notes = read_segments(self._fd, path)
        except OSError as error:
            self.close()
            raise explain(path, error) from error
        except SourceUnavailable:
            self.close()
            raise
        self.vmcoreinfo = parse_vmcoreinfo(notes)

    def read(self, address: int, size: int) -> bytes:
        """Read one block; see KernelMemory.read."""
        if not 0 <= address < 1 << 64:
            raise refuse_address(address, errnos.EFAULT)
        places, errno = self._places(np.array([address], np.uint64), np.array([size], np.uint32))
        data = os.pread(self._fd, size, int(places[0])) if not errno[0] else b""
        if len(data) != size:
            raise refuse_address(address, int(errno[0]) or errnos.EIO)
        return data

    def batches(self, addresses: U64, lengths: U32 | int) -> Iterator[Batch]:
        """See KernelMemory.batches; requests that are adjacent in the file share one pread."""
        lengths = np.broadcast_to(np.uint32(lengths), len(addresses))
        places, errno = self._places(addresses, lengths)
        ends = np.cumsum(lengths, dtype=np.int64)
        first = 0
        while first < len(addresses):
            begin = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, begin + _BATCH_BYTES, "right")), first + 1)
            rows = slice(first, last)
            data = np.zeros(int(ends[last - 1]) - begin, np.uint8)
            self._fill(data, places[rows], lengths[rows], errno[rows])
            yield Batch(first, data, errno[rows])
            first = last

    def _places(self, addresses: U64, lengths: U32) -> tuple[I64, I32]:
        # Offsets in the file, and EFAULT for requests that do not lie within one segment.
        segments = self.segments
        row = np.searchsorted(segments.start, addresses, "right").astype(np.int64) - 1
        known = row >= 0
        row = np.maximum(row, 0)
        inside = addresses - segments.start[row]
        room = segments.end[row] - segments.start[row]
        known &= (inside < room) & (lengths <= room - np.minimum(inside, room))
        places = np.where(known, inside + segments.place[row], 0).astype(np.int64)
        return places, np.where(known, 0, errnos.EFAULT).astype(np.int32)

    def _fill(self, data: U8, places: I64, lengths: U32, errno: I32) -> None:
        # One pread per run of requests that are adjacent in the file and in the answer.
        breaks = np.ones(len(places), bool)
        breaks[1:] = (places[1:] != places[:-1] + lengths[:-1]) | (errno[1:] != errno[:-1])
        begins = np.flatnonzero(breaks)
        at = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        raw = data.data
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(places)], strict=True):
            if errno[begin]:
                continue
            part = raw[int(at[begin]) : int(at[end])]
            if os.preadv(self._fd, [part], int(places[begin])) != len(part):
                errno[begin:end] = errnos.EIO

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_segments(fd: int, path: str) -> tuple[Segments, bytes]:
    """Read the PT_LOADs and the bytes of the first PT_NOTE of the core file ``fd``.

    A segment beyond the largest possible file offset is left out. Raises SourceUnavailable when the
    file is not a core file or contradicts itself.
    """
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        why = f"{path} is a device: containers mount /dev/null on what they hide"
        raise SourceUnavailable("kcore", why, "run on the host, or use --source ebpf")
    header = os.pread(fd, _HEADER.size, 0)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise _no_core(path, "not a 64-bit little-endian ELF file")
    table, width, count = struct.unpack_from("<32xQ14xHH", header)
    if width != _SEGMENT.size or count == _PN_XNUM or table + width * count > _LAST_BYTE:
        raise _no_core(path, f"its program headers cannot be read ({count} of {width} bytes)")
    raw = os.pread(fd, width * count, table)
    if len(raw) != width * count:
        raise _no_core(path, "its program headers are truncated")
    loads, notes = [], b""
    for kind, _, place, address, _, in_file, in_memory, _ in _SEGMENT.iter_unpack(raw):
        size = min(in_file, in_memory) if kind == _PT_LOAD else in_file
        if address + size >= 1 << 64:
            raise _no_core(path, f"a segment of {size} bytes at {address:#x} ends beyond 64 bits")
        if place + size > _LAST_BYTE:
            continue
        if kind == _PT_NOTE and not notes:
            notes = os.pread(fd, min(size, _NOTE_BYTES), place)
        if kind == _PT_LOAD and size:
            loads.append((address, address + size, place))
    if not loads:
        raise _no_core(path, "it has no memory segments")
    columns = np.array(sorted(loads), np.uint64).T
    return Segments(columns[0], columns[1], columns[2]), notes


def parse_vmcoreinfo(notes: bytes) -> dict[str, str]:
    """Return the VMCOREINFO lines in ELF ``notes`` as {key: value}, empty if there are none."""
    at = 0
    while at + _NOTE.size <= len(notes):
        name_size, size, _ = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        data_at = name_at + -(-name_size // 4) * 4
        if notes[name_at : name_at + name_size] == b"VMCOREINFO\0":
            pairs = (line.partition(b"=") for line in notes[data_at : data_at + size].split(b"\n"))
            return {decode_name(key): decode_name(value) for key, mark, value in pairs if mark}
        at = data_at + -(-size // 4) * 4
    return {}


def _no_core(path: str, why: str) -> SourceUnavailable:
    return SourceUnavailable("kcore", f"{path}: {why}", "give /proc/kcore or an ELF core file")


def explain(path: str, error: OSError, source: str = "kcore") -> SourceUnavailable:
    """Return the error for the kernel's refusal to open ``path``, with a remedy, for ``source``."""
    rights = read_rights()
    says = f"cannot open {path}: {error.strerror}"
    if error.errno == errnos.ENOENT:
        why, remedy = why_missing(path, "CONFIG_PROC_KCORE, or --source ebpf")
    elif rights.lockdown == "confidentiality":
        why = f"{says}: kernel lockdown is in confidentiality mode"
        remedy = "boot with lockdown=integrity or none, or use --source procfs"
    elif not rights.has("CAP_SYS_RAWIO"):
        why, remedy = f"{says}: CAP_SYS_RAWIO missing", "run as root, or grant CAP_SYS_RAWIO"
    else:
        why, remedy = says, "run as root outside a container, or use --source ebpf"
    return SourceUnavailable(source, why, remedy)
