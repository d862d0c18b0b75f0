"""Download Debian kernels with apt and unpack them into a cache; nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import VmtestError
from vmtest.kernels import Kernel

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Debian 12 and 13 ship a kernel as one package, later releases as four: the versioned packages in
# the metapackage's closure hold the files.
_KERNEL_PACKAGE = re.compile(r"linux-(image|binary|modules|base)-\d\S*")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An unpacked kernel; its modules are in lib/modules/`release` under `root`."""

    release: str
    root: Path

    @property
    def vmlinuz(self) -> Path:
        """Return the bootable image: in boot up to Debian 13, next to the modules in later ones."""
        in_boot = self.root / "boot" / f"vmlinuz-{self.release}"
        return in_boot if in_boot.exists() else self.modules / self.release / "vmlinuz"

    @property
    def modules(self) -> Path:
        """Return the directory that the guest sees as /lib/modules."""
        return self.root / "lib" / "modules"


def cache_dir() -> Path:
    """Return the download directory: $XDG_CACHE_HOME/pagewalk/vmtest, or under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pagewalk" / "vmtest"


def find_unpacked(kernel: Kernel) -> Unpacked | None:
    """Return an unpacked kernel from the cache, None if it has not been fetched."""
    return _read_unpacked(cache_dir() / kernel.suite / kernel.package)


def fetch(kernel: Kernel, *, update: bool = False) -> Unpacked:
    """Fetch a kernel into the cache, or find it there; `update` fetches the archive's newest.

    Raises VmtestError if apt, dpkg or depmod is missing or fails.
    """
    found = find_unpacked(kernel)
    if found and not update:
        return found
    apt = cache_dir() / kernel.suite / "apt"
    config = write_apt_config(apt, kernel.suite)
    _run("apt-get", "-c", config, "-q", "update")
    depends = _run("apt-cache", "-c", config, "depends", "--recurse", "--important", kernel.package)
    downloads = apt / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir()
    packages = parse_kernel_packages(depends)
    if not packages:
        raise VmtestError(
            f"cannot fetch {kernel.name}: in suite {kernel.suite}, {kernel.package} depends on "
            "no kernel image; check the row in vmtest/kernels.py"
        )
    _run("apt-get", "-c", config, "-q", "download", *packages, cwd=downloads)
    return _unpack(sorted(downloads.glob("*.deb")), cache_dir() / kernel.suite / kernel.package)


def write_apt_config(apt: Path, suite: str) -> Path:
    """Write a separate apt configuration under `apt`, and return its file.

    It uses this machine's mirror with another suite, keeps its state and downloads under `apt`, and
    has no record of installed packages, so that it cannot touch the system.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    sources = apt / "sources.list"
    sources.write_text(f"deb [arch=amd64 signed-by={KEYRING}] {read_mirror()} {suite} main\n")
    config = apt / "apt.conf"
    config.write_text(
        f'Dir::State "{apt}/state";\n'
        f'Dir::State::status "{apt}/status";\n'
        f'Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        'Dir::Etc::preferences "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        'APT::Architecture "amd64";\n'
        'APT::Architectures {"amd64";};\n'
        # The cache is in a home directory, where apt's own download user may not look.
        'APT::Sandbox::User "root";\n'
    )
    return config


def read_mirror() -> str:
    """Read the URI of the Debian archive from apt's own sources, whatever their format."""
    # os-release names the suite of the main archive, not of its updates or security fixes.
    codename = _read_os_release().get("VERSION_CODENAME", "")
    columns = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    text = _run("apt-get", "indextargets", "--format", columns, "Created-By: Packages")
    uri = parse_mirror(text, codename)
    if uri is None:
        raise VmtestError(
            f"cannot find a Debian mirror: apt has no '{codename} main' with origin Debian; "
            "run apt-get update, or use a Debian machine"
        )
    return uri


def parse_mirror(indextargets: str, codename: str) -> str | None:
    """Return the URI of Debian's main archive from lines of `URI RELEASE COMPONENT ORIGIN`."""
    for line in indextargets.splitlines():
        uri, *rest = line.split()
        if rest == [codename, "main", "Debian"]:
            return uri
    return None


def parse_kernel_packages(depends: str) -> list[str]:
    """Return the packages with kernel files among the output of `apt-cache depends`.

    Every package in the closure starts a line at column 0.
    """
    names: Iterable[str] = (line for line in depends.splitlines() if not line.startswith(" "))
    return sorted({name for name in names if _KERNEL_PACKAGE.fullmatch(name)})


def _unpack(debs: list[Path], root: Path) -> Unpacked:
    # Unpack next to the old one, then rename: an interrupted fetch never looks complete.
    fresh = root.with_name(root.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for deb in debs:
        _run("dpkg", "-x", deb, fresh)
        deb.unlink()
    # Trixie's packages use usr/lib, bookworm's lib; so do their depmod and modprobe.
    for missing, target in (("lib", "usr/lib"), ("usr/lib", "../lib")):
        if not (fresh / missing / "modules").exists():
            (fresh / missing).parent.mkdir(exist_ok=True)
            (fresh / missing).symlink_to(target)
    unpacked = _read_unpacked(fresh)
    if unpacked is None:
        names = ", ".join(deb.name for deb in debs)
        raise VmtestError(f"cannot unpack a kernel: no image with its modules in {names}")
    _run("depmod", "-b", fresh, unpacked.release)
    shutil.rmtree(root, ignore_errors=True)
    fresh.rename(root)
    return Unpacked(unpacked.release, root)


def _read_unpacked(root: Path) -> Unpacked | None:
    for modules in root.glob("lib/modules/*"):
        unpacked = Unpacked(modules.name, root)
        if unpacked.vmlinuz.exists():
            return unpacked
    return None


def _read_os_release() -> dict[str, str]:
    text = Path("/etc/os-release").read_text()
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise VmtestError(
            f"cannot run {argv[0]}: it is not installed; "
            "install the packages in vmtest/packages.txt"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or error.stdout.strip()
        raise VmtestError(f"{argv[0]} failed with {error.returncode}: {said}") from error
    return done.stdout
