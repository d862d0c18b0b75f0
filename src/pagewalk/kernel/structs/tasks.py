"""Every thread of the machine as columns, whatever PID namespace it is in.

A process of another PID namespace keeps files and maps memory like any other, but has no number in
our /proc: it has the one that the host gave it.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import read_structs, read_words
from pagewalk.kernel.structs.gather import gather
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import PF_KTHREAD, pid_namespaces
from pagewalk.kernel.structs.xarray import held
from pagewalk.model.columns import I64, U64, Bool, Rows
from pagewalk.proc.files import decode_name
from pagewalk.proc.namespace import own_numbers


class Tasks(Rows):
    """One row for each thread: u64 addresses of its ``task_struct``, and of what it uses.

    ``shown`` bool: whether /proc shows it. ``pid`` i64 is its number there, else the one on the
    host. ``leader`` the task_struct of its process; ``mm`` 0 for a kernel thread and for one that
    has exited; ``files`` its table of descriptors, else 0. ``comm`` its name.
    """

    address: U64
    shown: Bool
    pid: I64
    leader: U64
    mm: U64
    files: U64
    comm: tuple[str, ...]


def read_tasks(kernel: Kernel) -> Tasks:
    """Return every thread; those that start or end meanwhile may be missing.

    Raises OSError if the table of the host's PID namespace cannot be read, NotInBtf, and
    PagewalkError if /proc is one that we are not in.
    """
    own, (host, *_) = len(own_numbers()), pid_namespaces(kernel)
    pids, _ = held(kernel, kernel.field("pid_namespace", host, "idr.idr_rt.xa_head"))
    number, shown, there = _numbers(kernel, pids, own)
    tasks = np.uint64(kernel.btf.offset("pid", "tasks"))
    first, lost = read_words(kernel.memory, pids + tasks)  # PIDTYPE_PID has always been 0
    there &= (lost == 0) & (first != 0)
    address = first[there] - np.uint64(kernel.btf.offset("task_struct", "pid_links"))
    found, good = gather(kernel, "task_struct", address, ("group_leader", "mm", "files", "flags"))
    found["mm"][found["flags"] & np.uint64(PF_KTHREAD) != 0] = 0
    comm = kernel.btf.member("task_struct", "comm")
    raw, _ = read_structs(kernel.memory, address[good] + np.uint64(comm.offset), comm.size)
    return Tasks(
        address[good], shown[there][good], number[there][good].astype(np.int64),
        found["group_leader"][good], found["mm"][good], found["files"][good],
        tuple(decode_name(row.tobytes().partition(b"\0")[0]) for row in raw),
    )


def _numbers(kernel: Kernel, pids: U64, own: int) -> tuple[U64, Bool, Bool]:
    # Of each struct pid its number in /proc, else on the host; whether /proc shows it; and whether
    # it could be read. A struct pid has a number for each namespace from the host's down to its own
    # (struct upid, include/linux/pid.h); /proc is of the one ``own`` - 1 levels above ours.
    level = len(namespaces := pid_namespaces(kernel)) - own
    first = pids + np.uint64(kernel.btf.offset("pid", "numbers"))
    host, there = gather(kernel, "upid", first, ("nr",))
    deepest, _ = gather(kernel, "pid", pids, ("level",))
    inside = np.flatnonzero(deepest["level"] >= np.uint64(level))
    there_too, _ = gather(
        kernel, "upid", first[inside] + np.uint64(level * kernel.btf.size("upid")), ("nr", "ns"))
    same = there_too["ns"] == np.uint64(namespaces[level])
    shown = np.zeros(len(pids), bool)
    shown[inside[same]] = True
    number = host["nr"]
    number[inside[same]] = there_too["nr"][same]
    return number, shown, there


def hidden_processes(kernel: Kernel, groups: U64) -> I64:
    """Return the processes with memory that are in ``groups`` and that /proc does not show.

    ``groups`` are addresses of mem_cgroup (u64). The numbers (i64), ascending, are those on the
    host. Raises as read_tasks does. A css_set has a state in each controller, of which a mem_cgroup
    is one (include/linux/cgroup-defs.h).
    """
    tasks = read_tasks(kernel)
    users = np.flatnonzero(~tasks.shown & (tasks.mm != 0))
    sets, _ = gather(kernel, "task_struct", tasks.address[users], ("cgroups",))
    states = kernel.btf.member("css_set", "subsys")
    raw, _ = read_structs(kernel.memory, sets["cgroups"] + np.uint64(states.offset), states.size)
    state = np.ascontiguousarray(raw).view(np.uint64)  # a column for each controller
    wanted = groups + np.uint64(kernel.btf.offset("mem_cgroup", "css"))
    leaders = tasks.leader[users[np.isin(state, wanted).any(axis=1)]]
    found: I64 = np.sort(tasks.pid[np.isin(tasks.address, leaders)])
    return found
