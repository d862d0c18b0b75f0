"""Run one command in a guest that has this machine's files, and return what it left behind."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vmtest.errors import VmtestError
from vmtest.fetch import fetch
from vmtest.initramfs import build_initramfs
from vmtest.kernels import Kernel
from vmtest.qemu import boot, qemu_argv, read_tail, require_qemu

# Where the guest sees the directory it shares with the host; `files` under it is returned.
EXCHANGE = Path("/run/vmtest")
# On an emulated CPU a kernel may panic while it boots: 6.12 once did, in an interrupt, after 1.2 s.
BOOTS = 2


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in a guest left behind.

    files: contents by path under $VMTEST_OUTPUT. boot_seconds: from the start of QEMU to the start
    of the command; run_seconds: from there to the end of the command.
    """

    returncode: int
    stdout: str
    stderr: str
    files: dict[str, bytes]
    boot_seconds: float
    run_seconds: float


def run_in_vm(
    kernel: Kernel,
    argv: Sequence[str],
    *,
    timeout: float = 600,
    memory: int = 2 << 30,
    cpus: int = 2,
    env: Mapping[str, str] | None = None,
    echo: TextIO | None = None,
    output: Path | None = None,
) -> Result:
    """Run a command as root in a guest, in the caller's directory, and return what it left.

    timeout: seconds for boot and command together. memory: bytes of RAM. env: variables besides
    those of `guest_environment`. echo: a text stream that gets the command's stdout as it comes.
    output: a directory that gets what is under $VMTEST_OUTPUT, however the guest ends.

    The guest sees the host's files. What it writes goes to its own RAM and is lost, except under
    the directory $VMTEST_OUTPUT. The kernel is fetched if it is not in the cache yet.

    Raises VmtestError if there is no such kernel, QEMU cannot start or the guest does not finish.
    """
    require_qemu()
    unpacked = fetch(kernel)
    with tempfile.TemporaryDirectory(prefix="vmtest-") as name:
        exchange = Path(name)
        (exchange / "files").mkdir()
        (exchange / "initramfs").write_bytes(build_initramfs(unpacked))
        variables = {**guest_environment(kernel), **(env or {})}
        start = start_script(argv, variables, Path.cwd(), unpacked.root)
        (exchange / "start").write_text(start)
        machine = qemu_argv(kernel, unpacked.vmlinuz, exchange, memory=memory, cpus=cpus)
        began = time.time()
        try:
            until_started(exchange, lambda: boot(machine, exchange, timeout=timeout, echo=echo))
            return read_result(exchange, began)
        finally:
            if output is not None:
                shutil.copytree(exchange / "files", output, dirs_exist_ok=True)


def until_started(exchange: Path, boot_once: Callable[[], None]) -> None:
    """Boot, and up to BOOTS times while the guest powers off before it runs anything of ours."""
    for _ in range(BOOTS):
        boot_once()
        if (exchange / "started").exists():
            return


def guest_environment(kernel: Kernel) -> dict[str, str]:
    """Return the environment of the command: the caller's PATH, and the kernel it runs on."""
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "VMTEST_KERNEL": kernel.name,
        "VMTEST_LEVELS": str(kernel.levels),
        "VMTEST_OUTPUT": str(EXCHANGE / "files"),
    }


def start_script(
    argv: Sequence[str], env: Mapping[str, str], directory: Path, unpacked: Path
) -> str:
    """Return the shell script that is PID 1 once the guest has its root.

    unpacked: the directory with the kernel's own files.
    """
    variables = [f"{key}={value}" for key, value in env.items()]
    command = shlex.join(["env", "-i", *variables, *argv])
    return "\n".join(
        [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            # So that the command can load modules of its kernel, and find the configuration where
            # Debian puts it.
            "mkdir -p /lib/modules /boot",
            f"mount --bind {shlex.quote(str(unpacked / 'lib/modules'))} /lib/modules",
            f"mount --bind {shlex.quote(str(unpacked / 'boot'))} /boot",
            f"cd {shlex.quote(str(directory))}",
            f"touch {EXCHANGE}/started",
            f"{command} >{EXCHANGE}/stdout 2>{EXCHANGE}/stderr </dev/null",
            f"echo $? >{EXCHANGE}/returncode",
            "sync",
            "busybox poweroff -f",
            "",
        ]
    )


def read_result(exchange: Path, began: float) -> Result:
    """Return what a guest left in its exchange directory; QEMU started at `began` (time.time).

    Raises VmtestError if the guest powered off before the command ended.
    """
    returncode = exchange / "returncode"
    if not returncode.exists():
        raise VmtestError(
            "the guest powered off before the command ended; "
            f"its console ends with: {read_tail(exchange / 'console', 12)}"
        )
    # The timestamps are the host's: 9p creates these files here, so the guest's clock is not used.
    started, ended = (exchange / "started").stat().st_mtime, returncode.stat().st_mtime
    files = exchange / "files"
    return Result(
        returncode=int(returncode.read_text()),
        stdout=(exchange / "stdout").read_text(errors="replace"),
        stderr=(exchange / "stderr").read_text(errors="replace"),
        files={
            str(path.relative_to(files)): path.read_bytes()
            for path in sorted(files.rglob("*"))
            if path.is_file()
        },
        boot_seconds=started - began,
        run_seconds=ended - started,
    )
