"""Start QEMU on a kernel and wait until the guest powers itself off."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from pathlib import Path
from typing import TextIO

from vmtest.errors import VmtestError
from vmtest.kernels import Kernel

QEMU = "qemu-system-x86_64"


def require_qemu() -> None:
    """Raise VmtestError if QEMU is not installed."""
    if shutil.which(QEMU) is None:
        raise VmtestError(
            f"cannot boot a kernel: {QEMU} is not installed; "
            "install the packages in vmtest/packages.txt"
        )


def kernel_cmdline(kernel: Kernel) -> str:
    """Build the kernel command line; a panic ends QEMU at once, because it may not reboot."""
    # On a busy machine an emulated timer misses the period in which the kernel counts its
    # interrupts, and the kernel panics ("IO-APIC + timer doesn't work").
    words = ["console=ttyS0", "panic=-1", "no_timer_check", "rdinit=/init"]
    return " ".join([*words, *kernel.cmdline])


def qemu_argv(
    kernel: Kernel, vmlinuz: Path, exchange: Path, *, memory: int, cpus: int
) -> list[str]:
    """Build QEMU's command line: no device but a serial console and two 9p file systems.

    exchange: the host directory with the initramfs, where the console's output goes; the guest
    mounts it by the tag `exchange`, and the host's root, read-only, by `root`. memory: bytes.
    """
    la57 = "on" if kernel.levels == 5 else "off"
    options = [
        ("-accel", "tcg"),
        ("-machine", "q35,mem-merge=off"),  # else ksmd would be busy scanning 2 GiB of guest
        # QEMU 7.2 emulates AVX2 wrongly: numpy's argsort of 64-bit numbers returns nonsense.
        # ERMS makes the kernel and libc copy with rep movsb, which TCG emulates byte by byte. Linux
        # 6.1 takes FSRM, which QEMU 10 has, to imply ERMS (arch/x86/lib/memmove_64.S): with the one
        # alone it hangs.
        ("-cpu", f"max,la57={la57},avx2=off,erms=off,fsrm=off"),
        ("-m", f"{memory >> 20}M"),
        ("-smp", str(cpus)),
        ("-nodefaults",),
        ("-display", "none"),
        ("-no-reboot",),
        ("-serial", f"file:{exchange / 'console'}"),
        ("-kernel", str(vmlinuz)),
        ("-initrd", str(exchange / "initramfs")),
        ("-append", kernel_cmdline(kernel)),
        *_share("root", Path("/"), ",readonly=on"),
        *_share("exchange", exchange, ""),
    ]
    return [QEMU, *itertools.chain.from_iterable(options)]


def _share(tag: str, path: Path, limits: str) -> list[tuple[str, str]]:
    # remap: the host's root has several file systems, whose inode numbers would clash in one 9p.
    # security_model=none: an ordinary user may run this too; chown then fails silently.
    escaped = str(path).replace(",", ",,")
    return [
        ("-fsdev", f"local,id={tag},path={escaped},security_model=none,multidevs=remap{limits}"),
        ("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def boot(argv: list[str], exchange: Path, *, timeout: float, echo: TextIO | None) -> None:
    """Run QEMU until the guest is off, copying the file `stdout` in `exchange` to `echo`.

    Raises VmtestError if QEMU fails, or after `timeout` seconds; QEMU never outlives this call.
    """
    deadline = time.monotonic() + timeout
    shown = 0
    with open(exchange / "qemu", "wb") as log:
        qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while qemu.poll() is None:
            if time.monotonic() > deadline:
                raise VmtestError(
                    f"the guest did not finish within {timeout:.0f} s; "
                    f"its console ends with: {read_tail(exchange / 'console')}"
                )
            time.sleep(0.1)
            shown += _echo_from(exchange / "stdout", shown, echo)
    finally:
        qemu.kill()
        qemu.wait()
    _echo_from(exchange / "stdout", shown, echo)
    if qemu.returncode:
        raise VmtestError(f"{QEMU} failed with {qemu.returncode}: {read_tail(exchange / 'qemu')}")


def read_tail(path: Path, lines: int = 5) -> str:
    """Return the last lines of a log as one line of text."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:]) or "(nothing)"


def _echo_from(path: Path, offset: int, echo: TextIO | None) -> int:
    # Returns the number of bytes copied. A character split by the end of a read shows as U+FFFD;
    # Result.stdout has it whole.
    if echo is None or not path.exists():
        return 0
    with open(path, "rb") as stream:
        stream.seek(offset)
        new = stream.read()
    echo.write(new.decode(errors="replace"))
    echo.flush()
    return len(new)
