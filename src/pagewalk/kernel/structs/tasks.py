"""Every thread that the caller's PID namespace has, as columns."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_structs, read_words
from pagewalk.kernel.structs.dentries import read_members
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import pid_namespace
from pagewalk.model.columns import I64, U64, Bool, Rows, take
from pagewalk.proc.files import decode_name

# include/linux/xarray.h: the low bits 10 mark a node, small ones of them are reserved entries.
_SLOTS, _TAG, _NODE, _LARGEST_RESERVED = 64, np.uint64(3), np.uint64(2), np.uint64(4096)
_DEEPEST = 11  # levels of 6 bits for an index of 64
_KERNEL_THREAD = np.uint64(0x0020_0000)  # PF_KTHREAD, include/linux/sched.h


class Tasks(Rows):
    """One row for each thread: u64 addresses of its ``task_struct``, and of what it uses.

    ``pid`` i64, in the caller's PID namespace; ``leader`` the task_struct of its process; ``mm`` 0
    for a kernel thread and for one that has exited; ``files`` its table of descriptors, else 0.
    ``comm`` its name.
    """

    address: U64
    pid: I64
    leader: U64
    mm: U64
    files: U64
    comm: tuple[str, ...]


def read_tasks(kernel: Kernel) -> Tasks:
    """Return every thread; those that start or end meanwhile may be missing.

    Raises OSError if the table of the namespace cannot be read, NotInBtf.
    """
    namespace, level = pid_namespace(kernel)
    head = kernel.field("pid_namespace", namespace, "idr.idr_rt.xa_head")
    pids = _entries(kernel, np.array([head], np.uint64))
    number = kernel.btf.offset("pid", "numbers") + level * kernel.btf.size("upid")
    at = np.uint64(number + kernel.btf.offset("upid", "nr"))
    numbers, lost = read_words(kernel.memory, pids + at)
    first, unread = read_words(kernel.memory, pids + np.uint64(kernel.btf.offset("pid", "tasks")))
    there = (lost == 0) & (unread == 0) & (first != 0)
    address = first[there] - np.uint64(kernel.btf.offset("task_struct", "pid_links"))
    (leader, mm, files, flags), errno = read_members(
        kernel, "task_struct", address, ("group_leader", "mm", "files", "flags")
    )
    comm = kernel.btf.member("task_struct", "comm")
    raw, _ = read_structs(kernel.memory, address + np.uint64(comm.offset), comm.size)
    mm[flags & _KERNEL_THREAD != 0] = 0
    pid = (numbers[there] & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    names = np.array([decode_name(row.tobytes().partition(b"\0")[0]) for row in raw], object)
    good: Bool = errno == 0
    rows = take(_Numbers(address, pid, leader, mm, files), good)
    return Tasks(rows.address, rows.pid, rows.leader, rows.mm, rows.files,
                 tuple(names[good].tolist()))


class _Numbers(Rows):
    address: U64
    pid: I64
    leader: U64
    mm: U64
    files: U64


def _entries(kernel: Kernel, slots: U64) -> U64:
    # What an xarray holds, level by level.
    found = []
    offset = np.uint64(kernel.btf.offset("xa_node", "slots"))
    for _ in range(_DEEPEST):
        node = (slots & _TAG == _NODE) & (slots > _LARGEST_RESERVED)
        found.append(slots[(slots & _TAG == 0) & (slots != 0)])
        rows, errno = read_structs(kernel.memory, slots[node] - _NODE + offset, 8 * _SLOTS)
        slots = rows[errno == 0].view(np.uint64).ravel()
        if not len(slots):
            break
    return np.concatenate(found)
