"""Every thread that the caller's PID namespace has, as columns."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_structs, read_words
from pagewalk.kernel.structs.gather import gather
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import PF_KTHREAD, pid_namespace
from pagewalk.kernel.structs.xarray import held
from pagewalk.model.columns import I64, U64, Rows
from pagewalk.proc.files import decode_name


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
    pids, _ = held(kernel, head)
    number = kernel.btf.offset("pid", "numbers") + level * kernel.btf.size("upid")
    upids = pids + np.uint64(number)
    in_ours, there = gather(kernel, "upid", upids, ("nr",))
    tasks = np.uint64(kernel.btf.offset("pid", "tasks"))
    first, lost = read_words(kernel.memory, pids + tasks)  # PIDTYPE_PID has always been 0
    there &= (lost == 0) & (first != 0)
    address = first[there] - np.uint64(kernel.btf.offset("task_struct", "pid_links"))
    found, good = gather(kernel, "task_struct", address, ("group_leader", "mm", "files", "flags"))
    found["mm"][found["flags"] & np.uint64(PF_KTHREAD) != 0] = 0
    comm = kernel.btf.member("task_struct", "comm")
    raw, _ = read_structs(kernel.memory, address[good] + np.uint64(comm.offset), comm.size)
    return Tasks(
        address[good], in_ours["nr"][there][good].astype(np.int64), found["group_leader"][good],
        found["mm"][good], found["files"][good],
        tuple(decode_name(row.tobytes().partition(b"\0")[0]) for row in raw),
    )
