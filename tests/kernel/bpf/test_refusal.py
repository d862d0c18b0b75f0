"""Each refusal of bpf(2): the cause that is named, and the order in which causes are checked."""

from __future__ import annotations

import errno

import pytest

from pagewalk.kernel.bpf.refusal import explain, missing_capabilities
from pagewalk.proc.rights import Rights

IDENTITY = b"         0          0 4294967295\n"
SYS_ADMIN, PERFMON, BPF = 1 << 21, 1 << 38, 1 << 39
NOBODY = Rights(0, "", IDENTITY, 0)


def refusal(code: int, rights: Rights) -> str:
    return str(explain(OSError(code, "bpf(BPF_PROG_LOAD)"), rights))


@pytest.mark.parametrize(
    ("code", "rights", "cause", "remedy"),
    [
        (errno.ENOSYS, NOBODY, "no bpf system call", "CONFIG_BPF_SYSCALL"),
        (errno.EPERM, NOBODY._replace(seccomp=2), "seccomp filter", "outside the sandbox"),
        (
            errno.EPERM,
            NOBODY._replace(lockdown="confidentiality"),
            "lockdown is in confidentiality",
            "lockdown=integrity",
        ),
        (errno.EPERM, NOBODY._replace(uid_map=b"0 1000 1\n"), "user namespace", "outside the user"),
        (errno.EPERM, NOBODY, "CAP_BPF and CAP_PERFMON missing", "run as root"),
        (errno.EPERM, NOBODY._replace(effective=BPF), ": CAP_PERFMON missing", "grant CAP_BPF"),
        (errno.EPERM, NOBODY._replace(effective=PERFMON), ": CAP_BPF missing", "grant CAP_BPF"),
        (errno.EINVAL, NOBODY._replace(effective=SYS_ADMIN), "capabilities suffice", "5.10 or"),
        (errno.EPERM, NOBODY._replace(effective=SYS_ADMIN), "security module", "audit log"),
        (errno.EMFILE, NOBODY._replace(effective=SYS_ADMIN), "too many files are open", "ulimit"),
    ],
)
def test_cause_and_remedy(code: int, rights: Rights, cause: str, remedy: str) -> None:
    text = refusal(code, rights)
    assert cause in text
    assert remedy in text
    assert errno.errorcode[code] in text
    assert "\n" not in text


def test_the_most_fundamental_cause_is_named_first() -> None:
    # Everything is wrong at once; fixing one cause reveals the next.
    rights = Rights(2, "confidentiality", b"0 1000 1\n", 0)
    assert "no bpf system call" in refusal(errno.ENOSYS, rights)
    assert "seccomp" in refusal(errno.EPERM, rights)
    rights = rights._replace(seccomp=0)
    assert "lockdown" in refusal(errno.EPERM, rights)
    rights = rights._replace(lockdown="integrity")
    assert "user namespace" in refusal(errno.EPERM, rights)
    rights = rights._replace(uid_map=IDENTITY)
    assert "CAP_BPF and CAP_PERFMON" in refusal(errno.EPERM, rights)


def test_sys_admin_alone_suffices() -> None:
    assert missing_capabilities(NOBODY._replace(effective=SYS_ADMIN)) == []
    assert missing_capabilities(NOBODY._replace(effective=BPF | PERFMON)) == []
