"""Build the initramfs: a static busybox, init, and the modules needed to reach the host's files."""

from __future__ import annotations

import lzma
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import VmtestError
from vmtest.fetch import Unpacked

# Modules of a Debian kernel that the guest needs before it has a root file system.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
DIRECTORIES = ("bin", "dev", "host", "modules", "newroot", "writes")
INIT = Path(__file__).with_name("guest") / "init"
BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; `mode` is as in struct stat, type bits included."""

    name: str
    mode: int
    content: bytes = b""


def build_initramfs(kernel: Unpacked) -> bytes:
    """Build the initramfs of one kernel as an uncompressed newc archive.

    Raises VmtestError if busybox, modprobe or a module is missing.
    """
    if not BUSYBOX.exists():
        raise VmtestError(
            f"cannot build an initramfs: {BUSYBOX} does not exist; "
            "install the packages in vmtest/packages.txt"
        )
    modules = [(path.name.removesuffix(".xz"), read_module(path)) for path in module_files(kernel)]
    order = "".join(f"{name}\n" for name, _ in modules)
    members = [Member(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
    members += [
        Member("init", stat.S_IFREG | 0o755, INIT.read_bytes()),
        Member("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes()),
        Member("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Member("modules/order", stat.S_IFREG | 0o644, order.encode()),
    ]
    members += [Member(f"modules/{name}", stat.S_IFREG | 0o644, code) for name, code in modules]
    return newc(members)


def module_files(kernel: Unpacked) -> list[Path]:
    """Return the files of MODULES and their dependencies, in load order."""
    lines: list[str] = []
    for module in MODULES:
        argv = ["modprobe", "-d", str(kernel.root), "-S", kernel.release, "-C", "/dev/null"]
        argv += ["--show-depends", module]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise VmtestError(
                "cannot run modprobe: it is not installed; "
                "install the packages in vmtest/packages.txt"
            ) from error
        except subprocess.CalledProcessError as error:
            raise VmtestError(
                f"modprobe found no {module} for {kernel.release}: {error.stderr.strip()}"
            ) from error
        lines += done.stdout.splitlines()
    return parse_show_depends(lines)


def parse_show_depends(lines: Iterable[str]) -> list[Path]:
    """Return the files in lines of `modprobe --show-depends`, each where it first occurs."""
    # The other kind of line is "builtin NAME": nothing to load.
    loads = (line.split() for line in lines if line.startswith("insmod "))
    return list(dict.fromkeys(Path(words[1]) for words in loads))


def read_module(path: Path) -> bytes:
    """Read a module, decompressed; it keeps its appended signature, which lockdown requires."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def newc(members: Iterable[Member]) -> bytes:
    """Pack members into a newc cpio archive (Documentation/driver-api/early-userspace)."""
    packed = bytearray()
    for number, member in enumerate((*members, Member("TRAILER!!!", 0)), start=1):
        name = member.name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), name, check
        fields = (number, member.mode, 0, 0, 1, 0, len(member.content), 0, 0, 0, 0, len(name), 0)
        packed += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        packed += bytes(-len(packed) % 4) + member.content
        packed += bytes(-len(packed) % 4)
    return bytes(packed)
