"""Boot this machine's systemd in a container that has its files, and run a script there.

What the container writes goes to RAM and is lost, but for the folder that it sees as /out. It has
the rights and the kernel's log of this machine, and a part of its cgroups, with limits. pagewalk is
installed there as for all users: nothing of it is below /home, /root or /tmp.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.documents import ROOT
from tests.machine import need, remove_group

PATIENCE = 1200.0  # seconds: meant for what hangs, also in a guest
WRAPPER = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=/opt/pagewalk/src:/opt/packages
exec /opt/python/bin/{python} -m pagewalk "$@"
"""
SCRIPT_UNIT = """[Unit]
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -eux /out/script
StandardOutput=file:/out/log
StandardError=inherit
"""
TARGET = "[Unit]\nRequires=script.service\nAllowIsolate=yes\n"


class Mounted(NamedTuple):
    """A hierarchy of cgroups that systemd uses: where it is mounted, its type and its options."""

    point: str
    kind: str
    options: str


def hierarchies() -> list[Mounted]:
    """Return those of this machine: systemd's own, and the one with the memory controller."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, (kind, _, options) = before.split()[4], after.split()
        names = {*options.split(",")} & {"name=systemd", "memory"}
        if point.startswith("/sys/fs/cgroup") and (kind == "cgroup2" or names):
            named = "".join("none,name=systemd" if "name=systemd" in names else "memory")
            found.append(Mounted(point, kind, "" if kind == "cgroup2" else named))
    return found


def boot(folder: Path, name: str, units: Mapping[str, str], script: str) -> str:
    """Boot with ``units``, run ``script`` as root, and return what it wrote.

    The folder ``out`` in ``folder`` is /out there; ``name`` is that of the cgroup in which all of
    it runs. Raises AssertionError if the script fails.
    """
    need("systemd-container", "systemd-nspawn")
    out, made = folder / "out", folder / "made"
    made.mkdir()
    python = os.path.basename(os.path.realpath(sys.executable))
    files = {**units, "script.service": SCRIPT_UNIT, "script.target": TARGET}
    for unit, text in files.items():
        (made / unit).write_text(text)
    wrapper = WRAPPER.format(python=python)
    for path, text in ((out / "script", script), (folder / "pagewalk", wrapper)):
        path.write_text(text)
        path.chmod(0o755)
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", outside(folder, name)], check=False,
            capture_output=True, timeout=PATIENCE)
    finally:
        for one in hierarchies():
            remove_below(Path(one.point, name))
    log = out / "log"
    said = log.read_text(errors="replace") if log.exists() else ""
    assert done.returncode == 0, f"{said}\n{(done.stdout + done.stderr).decode(errors='replace')}"
    return said


def outside(folder: Path, name: str) -> str:
    """Return the script that makes the container's root, an overlay of ours, and boots it."""
    q = shlex.quote
    binds = {ROOT: "/opt/pagewalk", sys.base_prefix: "/opt/python",
             sysconfig.get_path("purelib"): "/opt/packages"}
    lines = [
        f"cd {q(str(folder))}; mkdir writes; mount -t tmpfs tmpfs writes",
        "mkdir writes/upper writes/work writes/root",
        "mount -t overlay -o lowerdir=/,upperdir=$PWD/writes/upper,workdir=$PWD/writes/work"
        " overlay writes/root",
        "cp made/* writes/root/etc/systemd/system/; cp pagewalk writes/root/usr/local/bin/",
        # The kernel's log names cgroups as this namespace of them does, and nspawn makes another.
        "touch writes/root/opt/cgroups; mount --bind /proc/self/ns/cgroup writes/root/opt/cgroups",
        "mount -t tmpfs tmpfs /run",  # where nspawn leaves something
    ]
    inside = []
    for one in hierarchies():
        path = q(f"{one.point}/{name}")
        if one.kind == "cgroup2" and "memory" in Path(one.point, "cgroup.controllers").read_text():
            lines.append(f"echo +memory > {q(one.point)}/cgroup.subtree_control")
        lines.append(f"mkdir -p {path}; echo $$ > {path}/cgroup.procs")
        options = f"-o {one.options} " if one.options else ""
        inside.append(f"umount {q(one.point)}; mount -t {one.kind} {options}cgroup {q(one.point)}")
        if one.options == "memory":
            # where systemd is in its own hierarchy: else it does not see that it has the controller
            inside.append(f"mkdir -p {path}/payload")
    inside.append("exec /lib/systemd/systemd systemd.unit=script.target")
    words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--capability=all",
             "--system-call-filter=bpf kcmp", "--bind=/dev/kmsg",
             *(f"--bind-ro={source}:{place}" for source, place in binds.items()),
             f"--bind={folder / 'out'}:/out", "--directory=writes/root", f"--machine={name}",
             "--console=pipe",
             "nsenter", "--cgroup=/opt/cgroups", "/bin/sh", "-euxc", "\n".join(inside)]
    lines.append(f"exec {shlex.join(words)}")
    return "\n".join(lines)


def remove_below(path: Path) -> None:
    """Remove a cgroup, and those below it."""
    for folder, _, _ in os.walk(path, topdown=False):
        remove_group(Path(folder))
