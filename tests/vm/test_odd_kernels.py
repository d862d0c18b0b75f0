"""Kernels booted with options that take something away, under QEMU: what the commands then say."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import Any

import pytest
from vmtest.fetch import find_unpacked
from vmtest.kernels import KERNELS
from vmtest.qemu import QEMU
from vmtest.run import run_in_vm

KERNEL = KERNELS["6.12"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(
        shutil.which(QEMU) is None or find_unpacked(KERNEL) is None,
        reason=f"needs {QEMU} and: python -m vmtest fetch {KERNEL.name}",
    ),
]

# Runs each line of argv as pagewalk's arguments, in a cgroup of its own if there are any, and
# writes a line of JSON for each.
SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
top = Path("/sys/fs/cgroup")
if "memory" in (top / "cgroup.controllers").read_text().split():
    (top / "cgroup.subtree_control").write_text("+memory")
    (top / "own").mkdir()
    (top / "own/cgroup.procs").write_text(str(os.getpid()))
for line in sys.argv[1:]:
    ran = subprocess.run([sys.executable, "-m", "pagewalk", *line.split()], capture_output=True,
                         text=True)
    print(json.dumps([ran.returncode, ran.stdout, ran.stderr]))
"""


def said(option: str, *commands: str) -> list[tuple[int, str, str]]:
    """Return the exit code and the output of each command on a kernel booted with ``option``."""
    words = [sys.executable, "-c", SCRIPT, *commands]
    result = run_in_vm(replace(KERNEL, cmdline=(option,)), words, timeout=900)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stdout
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return [(code, out, err) for code, out, err in found]


def test_what_a_kernel_does_not_charge_is_no_zero_without_a_word() -> None:
    group, text, table = said(
        "cgroup.memory=nokmem,nosocket", "explain /own --format json", "explain /own", "cgroups")
    assert [code for code, _, _ in (group, text, table)] == [0, 0, 0]
    found: dict[str, Any] = json.loads(group[1])
    assert [line for line in found["ledger"] if line["unexplained"]] == []
    assert (found["kernel_objects"], found["caches"], found["sockets"]) == (0, [], None)
    assert found["kinds"]["anon"] > 0
    assert "object_stock" not in {
        cause["cause"] for line in found["ledger"] for cause in line["causes"]}
    whys = {row["what"]: row["why"] for row in found["withheld"]}
    assert "cgroup.memory=nokmem" in whys["the kernel's pages and objects"]
    assert "cgroup.memory=nosocket" in whys["buffers of sockets"]
    for _, out, _ in (text, table):
        assert "n/a: the kernel's pages and objects: this kernel was booted with" in out


def test_a_kernel_without_memory_cgroups() -> None:
    commands = ("ram", "ram --files", "ram --slab", "ram --map", "cgroups", "cgroups --dying",
                "explain --cgroup 1", "explain /")
    *ram, table, dying, own, root = said("cgroup_disable=memory", *commands)
    assert [code for code, _, _ in ram] == [0, 0, 0, 0]
    assert "of RAM are kernel objects" in ram[2][1]
    for code, out, err in (table, dying, own):
        assert (code, out) == (1, "")
        assert "this kernel was booted with cgroup_disable=memory; boot without it" in err
    assert root[:2] == (2, "")
    assert "it is no cgroup either: this kernel was booted with cgroup_disable=memory" in root[2]
