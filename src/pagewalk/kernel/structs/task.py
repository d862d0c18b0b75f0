"""pid -> task -> mm -> page-table root, by plain reads of the kernel's own structs.

It goes the kernel's way: find_pid_ns() and pid_task() of kernel/pid.c, or, for a process that is
held by its /proc directory, from that descriptor (proc_pid() of fs/proc/internal.h). Nothing is
locked, so every answer is checked by reading the pointers to it again; a task that was freed on the
way is looked up again.
"""

import os
from typing import NamedTuple

from pagewalk.kernel.readers.memory import read_bytes, read_word
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.errors import ProcessGone, SourceUnavailable, Unsupported
from pagewalk.proc.files import decode_name

# include/linux/sched.h, stable since 2.6
_PF_EXITING, PF_KTHREAD = 0x00000004, 0x00200000
# include/linux/xarray.h: a tagged node pointer, a 64-slot node, and the reserved entries
_XA_TAG, _XA_INTERNAL, _XA_SLOTS, _XA_LARGEST_RESERVED = 3, 2, 64, 4096

_ATTEMPTS = 5


class Task(NamedTuple):
    """One thread.

    ``address`` of its task_struct; ``pid`` its id in the caller's namespace; ``comm`` its name;
    ``mm`` the address of its mm_struct, None for a kernel thread and for one that is exiting or has
    exited (``exiting``); ``start_ns`` its start time since boot in ns, which reveals a reused pid.
    """

    address: int
    pid: int
    comm: str
    mm: int | None
    exiting: bool
    start_ns: int


def find_task(kernel: Kernel, pid: int) -> Task:
    """Find the thread that the caller's PID namespace calls ``pid``.

    Any thread's id will do: after the group leader has exited, live threads still lead to the mm.
    Raises ProcessGone if there is none.
    """
    for _ in range(_ATTEMPTS):
        try:
            task = _task_once(kernel, pid)
        except OSError:
            continue
        if task is not None:
            return task
    raise ProcessGone(pid, "does not exist")


def pid_behind(kernel: Kernel, dirfd: int) -> int:
    """Return the address of the struct pid whose /proc directory is open as ``dirfd``.

    No number is looked up: in another PID namespace it would mean another process. While ``dirfd``
    is open, the struct pid is neither freed nor given to another task. Raises SourceUnavailable
    when the inode that was read cannot be verified to be the descriptor's.
    """
    real = os.fstat(dirfd)
    # dev_t inside the kernel has 20 MINORBITS (include/linux/kdev_t.h)
    real_device = os.major(real.st_dev) << 20 | os.minor(real.st_dev)
    for _ in range(_ATTEMPTS):
        try:
            inode = kernel.field("file", file_behind(kernel, dirfd), "f_inode")
            found = kernel.fields("inode", inode, ("i_ino", "i_sb"))
            device = kernel.field("super_block", found["i_sb"], "s_dev")
            start = inode - kernel.btf.offset("proc_inode", "vfs_inode")
            struct_pid = kernel.field("proc_inode", start, "pid")
        except OSError:
            continue
        if (found["i_ino"], device) == (real.st_ino, real_device) and struct_pid:
            return struct_pid
    raise SourceUnavailable(
        "kernel memory",
        "cannot verify that the process found is the one whose /proc directory is open",
        "use --source procfs, and report this with the kernel's version",
    )


def file_behind(kernel: Kernel, fd: int) -> int:
    """Return the address of the struct file behind our descriptor ``fd``; raises OSError."""
    return read_word(kernel.memory, file_table(kernel) + 8 * fd)


def file_table(kernel: Kernel) -> int:
    """Return where the addresses of our struct files are, by descriptor; raises OSError."""
    files = kernel.field("task_struct", kernel.current, "files")
    table = kernel.field("files_struct", files, "fdt")
    return kernel.field("fdtable", table, "fd")


def task_of(kernel: Kernel, struct_pid: int, number: int) -> Task:
    """Return the thread that has ``struct_pid``, which the caller calls ``number``.

    Raises ProcessGone when it has exited and been reaped.
    """
    for _ in range(_ATTEMPTS):
        try:
            address = _pid_task(kernel, struct_pid)
            if not address:
                break
            task = _read_task(kernel, address, number)
            if _is_still(kernel, struct_pid, address):
                return task
        except OSError:
            continue
    raise ProcessGone(number, "ended")


def _task_once(kernel: Kernel, pid: int) -> Task | None:
    # None if it does not exist, or changed while we read it.
    namespace, level = pid_namespace(kernel)
    struct_pid = _xarray_load(kernel, namespace, pid)
    if not struct_pid:
        return None
    address = _pid_task(kernel, struct_pid)
    if not address or _number(kernel, struct_pid, level) != pid:
        return None
    task = _read_task(kernel, address, pid)
    still = _is_still(kernel, struct_pid, address)
    return task if still and _number(kernel, struct_pid, level) == pid else None


def _is_still(kernel: Kernel, struct_pid: int, address: int) -> bool:
    # The task that we read belonged to this pid only if it still does: both are freed and reused.
    still = _pid_task(kernel, struct_pid) == address
    return still and kernel.field("task_struct", address, "thread_pid") == struct_pid


def pid_namespace(kernel: Kernel) -> tuple[int, int]:
    """Return the address of the caller's PID namespace, and its level.

    As task_active_pid_ns(current): that of its pid's innermost number. Raises OSError.
    """
    namespaces = pid_namespaces(kernel)
    return namespaces[-1], len(namespaces) - 1


def pid_namespaces(kernel: Kernel) -> list[int]:
    """Return the addresses of the PID namespaces that the caller has a number in.

    The first is the host's, the last the caller's own. Raises OSError.
    """
    struct_pid = kernel.field("task_struct", kernel.current, "thread_pid")
    level = kernel.field("pid", struct_pid, "level")
    return [kernel.field("upid", _upid(kernel, struct_pid, at), "ns") for at in range(level + 1)]


def _upid(kernel: Kernel, struct_pid: int, level: int) -> int:
    return struct_pid + kernel.btf.offset("pid", "numbers") + level * kernel.btf.size("upid")


def _number(kernel: Kernel, struct_pid: int, level: int) -> int:
    return kernel.field("upid", _upid(kernel, struct_pid, level), "nr")


def _pid_task(kernel: Kernel, struct_pid: int) -> int:
    # The first entry of tasks[PIDTYPE_PID]; PIDTYPE_PID has always been 0.
    node = read_word(kernel.memory, struct_pid + kernel.btf.offset("pid", "tasks"))
    return node - kernel.btf.offset("task_struct", "pid_links") if node else 0


def _read_task(kernel: Kernel, address: int, pid: int) -> Task:
    found = kernel.fields("task_struct", address, ("flags", "mm", "exit_state", "start_boottime"))
    comm = kernel.btf.member("task_struct", "comm")
    raw = read_bytes(kernel.memory, address + comm.offset, comm.size).partition(b"\0")[0]
    return Task(
        address=address,
        pid=pid,
        comm=decode_name(raw),
        # A kernel thread may borrow an mm (kthread_use_mm); it never has its own.
        mm=None if found["flags"] & PF_KTHREAD else found["mm"] or None,
        exiting=bool(found["exit_state"] or found["flags"] & _PF_EXITING),
        start_ns=found["start_boottime"],
    )


def _xarray_load(kernel: Kernel, namespace: int, pid: int) -> int:
    # idr_find(&ns->idr, pid): the entry at that index, 0 when empty (lib/xarray.c, xas_load).
    if not kernel.btf.has("pid_namespace", "idr"):
        raise Unsupported("pid lookup by idr", "4.15")
    idr = namespace + kernel.btf.offset("pid_namespace", "idr")
    index = pid - kernel.field("idr", idr, "idr_base")
    entry = kernel.field("idr", idr, "idr_rt.xa_head")
    slots = kernel.btf.offset("xa_node", "slots")
    root, shift = True, 0
    while entry & _XA_TAG == _XA_INTERNAL and entry > _XA_LARGEST_RESERVED:
        node = entry - _XA_INTERNAL
        shift = kernel.field("xa_node", node, "shift")
        if root and index >> shift >= _XA_SLOTS:
            return 0
        entry = read_word(kernel.memory, node + slots + 8 * (index >> shift & _XA_SLOTS - 1))
        root = False
        if shift == 0:
            break
    # A tree whose root is not a node holds only index 0.
    return 0 if entry & _XA_TAG or (root and index) else entry
