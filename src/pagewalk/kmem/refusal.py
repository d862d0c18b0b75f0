"""Why the kernel refused bpf(2), and what to do: one sentence, the first cause that holds."""

from __future__ import annotations

import errno as errnos
import os
from collections.abc import Collection

from pagewalk.errors import SourceUnavailable
from pagewalk.proc.rights import Rights, is_initial

_GRANT = "run as root, or grant CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)"


def missing_capabilities(rights: Rights) -> list[str]:
    """Name what ``rights`` lacks to read kernel memory by bpf(2); empty when nothing."""
    if rights.has("CAP_SYS_ADMIN"):
        return []
    return [name for name in ("CAP_BPF", "CAP_PERFMON") if not rights.has(name)]


def explain(error: OSError, rights: Rights) -> SourceUnavailable:
    """Turn bpf(2)'s refusal into one sentence with its remedy, most fundamental cause first."""
    says = f"{error.strerror} says {errnos.errorcode.get(error.errno or 0, error.errno)}"
    why, remedy = _cause(error, rights)
    return SourceUnavailable("ebpf", f"{says}: {why}", remedy)


def _cause(error: OSError, rights: Rights) -> tuple[str, str]:
    if error.errno == errnos.ENOSYS:
        return "this kernel has no bpf system call", "use a kernel built with CONFIG_BPF_SYSCALL"
    if rights.seccomp == 2 and error.errno in (errnos.EPERM, errnos.EACCES):
        return (
            "a seccomp filter is in force, and a container's usual one forbids bpf",
            "run outside the sandbox, or give the container a profile that allows bpf",
        )
    if rights.lockdown == "confidentiality":
        return (
            "kernel lockdown is in confidentiality mode, which forbids reading kernel memory",
            "boot with lockdown=integrity or none, or take --source procfs",
        )
    # a kernel without user namespaces has no such file
    if rights.uid_map and not is_initial(rights.uid_map):
        return (
            "this is a user namespace, and bpf asks for rights in the initial one",
            "run outside the user namespace, as root",
        )
    missing = missing_capabilities(rights)
    if missing:
        return f"{' and '.join(missing)} missing", _GRANT
    return _leftover(error)


def _leftover(error: OSError) -> tuple[str, str]:
    # Everything that could be named beforehand is in order: give the kernel's own word.
    if error.errno in (errnos.EINVAL, errnos.E2BIG):
        return (
            "it refuses this program or map although the rights suffice",
            f"a kernel of at least 5.10 is needed, this is {os.uname().release}",
        )
    if error.errno == errnos.ENOMEM:
        return "no memory for the maps", "free some memory or raise RLIMIT_MEMLOCK"
    return "the rights suffice, so a security module may forbid it", "ask `dmesg` or the audit log"


def refuse_machine(machine: str, known: Collection[str]) -> SourceUnavailable:
    """Say that bpf(2)'s number on ``machine`` is not among those ``known``."""
    return SourceUnavailable(
        "ebpf", f"it is not made for {machine} (only {', '.join(known)})", "take --source procfs"
    )
