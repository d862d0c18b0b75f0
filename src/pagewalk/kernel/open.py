"""Open the running kernel: a reader of its memory, its BTF, and a task of our own in it."""

from __future__ import annotations

import mmap
import os
import re
from contextlib import ExitStack, closing, suppress
from typing import BinaryIO

from pagewalk.kernel.readers.bpf import BpfMemory
from pagewalk.kernel.readers.memory import KernelMemory
from pagewalk.kernel.structs.btf import Btf
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import find_task, pid_behind, task_of
from pagewalk.model.errors import ProcessGone, SourceUnavailable
from pagewalk.proc.files import read_bytes, to_do
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.refusals import why_missing

BTF_PATH = "/sys/kernel/btf/vmlinux"


def read_btf() -> Btf:
    """Open the running kernel's BTF; raises SourceUnavailable if it has none."""
    try:
        with open(BTF_PATH, "rb") as file:
            return Btf(_contents(file))
    except OSError as error:
        raise SourceUnavailable(
            "btf",
            f"cannot read {BTF_PATH}: {error.strerror}",
            to_do(error, "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels"
                         " are"),
        ) from error


def _contents(file: BinaryIO) -> bytes | mmap.mmap:
    # Since 6.16 it can be mapped, which saves a copy of several mebibytes.
    try:
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return file.read()


def open_bpf() -> Kernel:
    """Open the running kernel through bpf(2); raises SourceUnavailable with cause and remedy."""
    with ExitStack() as held:
        memory = held.enter_context(closing(BpfMemory()))
        kernel = Kernel(memory, read_btf(), memory.current, held)
        # The calling thread may exit before the process; the group leader's task_struct stays.
        leader = kernel.field("task_struct", memory.current, "group_leader")
        return kernel._replace(current=leader, held=held.pop_all())


def open_kcore(memory: KernelMemory, source: str = "kcore") -> Kernel:
    """Open the running kernel through ``memory``, a reader of /proc/kcore, for ``source``.

    A core file does not say which task is reading it, so our own is looked up by its PID: that
    needs a /proc of the initial PID namespace, and the address of init_task from /proc/kallsyms.
    Raises SourceUnavailable with the remedy if either is missing; ``memory`` is closed then.
    """
    with ExitStack() as held:
        held.callback(memory.close)
        kernel = Kernel(memory, read_btf(), _init_task(source), held)
        number = own_numbers()[0]
        with suppress(ProcessGone, SourceUnavailable):
            own = kernel._replace(current=find_task(kernel, number).address)
            if _is_ours(own, number):
                return own._replace(held=held.pop_all())
    raise SourceUnavailable(
        source, "pagewalk runs in a PID namespace of its own", "run on the host, or --source ebpf"
    )


def _is_ours(kernel: Kernel, number: int) -> bool:
    # In another PID namespace this number is another process, which does not have our descriptors.
    fd = os.open("/proc/self/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return task_of(kernel, pid_behind(kernel, fd), number).address == kernel.current
    finally:
        os.close(fd)


def _init_task(source: str) -> int:
    try:
        symbols = read_bytes("/proc/kallsyms")
    except FileNotFoundError:
        raise SourceUnavailable(
            source, *why_missing("/proc/kallsyms", "CONFIG_KALLSYMS, or use --source ebpf")
        ) from None
    except OSError as error:
        why = f"cannot read /proc/kallsyms: {error.strerror}"
        raise SourceUnavailable(source, why, "run as root, or --source ebpf") from error
    address = find_symbol(symbols, "init_task")
    if not address:
        raise SourceUnavailable(
            source,
            "/proc/kallsyms does not show init_task",
            "grant CAP_SYSLOG, on a kernel built with CONFIG_KALLSYMS_ALL, or --source ebpf",
        )
    return address


def find_symbol(kallsyms: bytes, name: str) -> int:
    """Return the address of ``name`` in the text of kallsyms, 0 if it is not shown."""
    found = re.search(rb"(?m)^([0-9a-f]{1,16}) [A-Za-z] %b\n" % name.encode(), kallsyms)
    return int(found[1], 16) if found else 0
