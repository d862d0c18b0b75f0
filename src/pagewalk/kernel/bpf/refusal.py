"""Why the kernel refused bpf(2), and what to do: one sentence, the first cause that applies."""

from __future__ import annotations

import errno as errnos
import os

from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.files import TOO_MANY, to_do
from pagewalk.proc.rights import Rights, is_initial

_GRANT = "run as root, or grant CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)"


def missing_capabilities(rights: Rights) -> list[str]:
    """Return the capabilities that ``rights`` lacks for reading kernel memory by bpf(2)."""
    if rights.has("CAP_SYS_ADMIN"):
        return []
    return [name for name in ("CAP_BPF", "CAP_PERFMON") if not rights.has(name)]


def explain(error: OSError, rights: Rights) -> SourceUnavailable:
    """Return the error for bpf(2)'s refusal, with the most fundamental cause and its remedy."""
    says = f"{error.strerror} says {errnos.errorcode.get(error.errno or 0, error.errno)}"
    why, remedy = _cause(error, rights)
    return SourceUnavailable("ebpf", f"{says}: {why}", remedy)


def _cause(error: OSError, rights: Rights) -> tuple[str, str]:
    if error.errno in TOO_MANY:
        return "too many files are open", to_do(error, "")
    if error.errno == errnos.ENOSYS:
        return "this kernel has no bpf system call", "use a kernel built with CONFIG_BPF_SYSCALL"
    if rights.seccomp == 2 and error.errno in (errnos.EPERM, errnos.EACCES):
        return (
            "a seccomp filter is active, and a container's default filter forbids bpf",
            "run outside the sandbox, or give the container a profile that allows bpf",
        )
    if rights.lockdown == "confidentiality":
        return (
            "kernel lockdown is in confidentiality mode, which forbids reading kernel memory",
            "boot with lockdown=integrity or none, or use --source procfs",
        )
    # a kernel without user namespaces has no such file
    if rights.uid_map and not is_initial(rights.uid_map):
        return (
            "this is a user namespace, and bpf requires capabilities in the initial one",
            "run outside the user namespace, as root",
        )
    missing = missing_capabilities(rights)
    if missing:
        return f"{' and '.join(missing)} missing", _GRANT
    return _leftover(error)


def _leftover(error: OSError) -> tuple[str, str]:
    # Every cause that we can check for is ruled out: go by the kernel's errno.
    if error.errno in (errnos.EINVAL, errnos.E2BIG):
        return (
            "it refuses this program or map although the capabilities suffice",
            f"use kernel 5.10 or later; this is {os.uname().release}",
        )
    if error.errno == errnos.ENOMEM:
        return "no memory for the maps", "free some memory or raise RLIMIT_MEMLOCK"
    return (
        "the capabilities suffice, so a security module may forbid it",
        "check `dmesg` or the audit log",
    )
