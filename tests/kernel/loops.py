"""Whether this kernel has the loops that our programs are written with."""

from __future__ import annotations

from pathlib import Path

import pytest

BTF = Path("/sys/kernel/btf/vmlinux")


def has_loops() -> bool:
    """Return whether the kernel's BTF names bpf_iter_num_new, which came with 6.4."""
    return BTF.exists() and b"\0bpf_iter_num_new\0" in BTF.read_bytes()


needs_loops = pytest.mark.skipif(
    not has_loops(), reason=f"{BTF} has no bpf_iter_num_new, which came with Linux 6.4"
)
