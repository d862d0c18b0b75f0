"""Who may read kernel memory by eBPF, as the kernel decides: each case in its own child process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.live

SYS_ADMIN, PERFMON, BPF = 21, 38, 39

# Keeps only these capabilities (capset, version 3: two sets of 32), then does the whole job: open,
# find the direct map and the struct pages, find our own task. Prints "ok" or the refusal.
JOB = """
import ctypes, os, struct, sys
from pagewalk.model.errors import PagewalkError
from pagewalk.kernel.structs.direct_map import find_direct_map, find_mem_map
from contextlib import closing
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.bpf.syscall import BPF_SYSCALL
from pagewalk.kernel.structs.task import find_task

libc = ctypes.CDLL(None, use_errno=True)

def keep(capabilities):
    mask = sum(1 << c for c in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(struct.pack("<6I", low, low, 0, high, high, 0))
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")

def forbid_bpf(code):
    # seccomp: load the system call's number; errno for bpf, allow everything else.
    number = BPF_SYSCALL[os.uname().machine]
    rows = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | code), (6, 0, 0, 0x7FFF0000))
    text = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(text)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")

def job():
    with closing(open_bpf()) as kernel:
        find_mem_map(kernel, find_direct_map(kernel))
        assert find_task(kernel, os.getpid()).address == kernel.current
    print("ok")

exec(sys.argv[1])
try:
    job()
except PagewalkError as error:
    print(error)
"""


def verdict(setup: str, *command: str) -> str:
    done = subprocess.run(
        [*command, sys.executable, "-c", JOB, setup], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([BPF, PERFMON], "ok"),
        ([SYS_ADMIN], "ok"),
        ([BPF], "CAP_PERFMON missing"),
        ([PERFMON], "CAP_BPF missing"),
        ([], "CAP_BPF and CAP_PERFMON missing"),
    ],
)
def test_capabilities(capabilities: list[int], expected: str) -> None:
    says = verdict(f"keep({capabilities})")
    if expected == "ok":
        assert says == "ok"
    else:
        assert says.startswith("source 'ebpf' is not available: bpf(BPF_")
        assert f": {expected}; run as root, or grant CAP_BPF and CAP_PERFMON" in says
        assert "\n" not in says


def test_full_root() -> None:
    assert verdict("pass") == "ok"


def test_an_ordinary_user() -> None:
    says = verdict("os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)")
    assert "CAP_BPF and CAP_PERFMON missing; run as root" in says


def test_root_of_a_user_namespace() -> None:
    # It has all capabilities, but in its own namespace, while bpf wants them in the initial one.
    says = verdict("pass", "unshare", "--user", "--map-root-user")
    assert "this is a user namespace" in says
    assert "\n" not in says


@pytest.mark.parametrize(("code", "cause"), [(1, "seccomp filter"), (38, "no bpf system call")])
def test_a_seccomp_filter(code: int, cause: str) -> None:
    # 1 is EPERM, a container's usual answer; 38 is ENOSYS, which looks like a kernel without bpf.
    assert cause in verdict(f"forbid_bpf({code})")
