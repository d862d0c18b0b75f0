"""Choosing packages and mirrors, and an apt configuration that cannot touch the system."""

import shutil
import subprocess
from pathlib import Path

import pytest
from vmtest import fetch
from vmtest.errors import VmtestError
from vmtest.kernels import KERNELS

# As `apt-get indextargets` prints them; the mirror's updates and a foreign archive come first.
INDEXTARGETS = """\
http://mirror.example/debian/ bookworm-updates main Debian
http://tools.example/apt/ bookworm main Tools
http://mirror.example/debian/ bookworm contrib Debian
http://mirror.example/debian/ bookworm main Debian
http://mirror.example/debian-security/ bookworm-security main Debian
"""

# As `apt-cache depends --recurse` prints it.
DEPENDS = """\
linux-image-amd64
  Depends: linux-image-6.1.0-50-amd64
linux-image-6.1.0-50-amd64
  Depends: kmod
  Depends: linux-base
kmod
  Depends: libc6
linux-base
linux-base-6.1.0-50-amd64
linux-modules-6.1.0-50-amd64
"""


def test_the_mirror_is_the_main_archive_of_debian() -> None:
    assert fetch.parse_mirror(INDEXTARGETS, "bookworm") == "http://mirror.example/debian/"


def test_no_mirror_for_an_unknown_release() -> None:
    assert fetch.parse_mirror(INDEXTARGETS, "noble") is None


def test_only_versioned_kernel_packages_are_chosen() -> None:
    assert fetch.parse_kernel_packages(DEPENDS) == [
        "linux-base-6.1.0-50-amd64",
        "linux-image-6.1.0-50-amd64",
        "linux-modules-6.1.0-50-amd64",
    ]


@pytest.mark.skipif(shutil.which("apt-config") is None, reason="apt is not installed")
def test_apt_itself_reads_the_configuration_as_intended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "read_mirror", lambda: "http://mirror.example/debian/")
    config = fetch.write_apt_config(tmp_path / "apt", "trixie")
    dump = subprocess.run(
        ["apt-config", "-c", config, "dump", "--format", "%f %v%n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split(" ", 1) for line in dump.splitlines())
    own = str(tmp_path / "apt")
    for key in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        assert values[key].startswith(own), key
    assert values["Dir::Etc::sourceparts"] == "/dev/null"
    (line,) = Path(values["Dir::Etc::sourcelist"]).read_text().splitlines()
    assert line.endswith("http://mirror.example/debian/ trixie main")


@pytest.mark.parametrize(
    "image", ["boot/vmlinuz-6.1.0-50-amd64", "lib/modules/6.1.0-50-amd64/vmlinuz"]
)
def test_a_kernel_is_found_where_its_debian_release_keeps_it(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "pagewalk" / "vmtest" / "bookworm" / "linux-image-amd64"
    (root / "boot").mkdir(parents=True)
    (root / "lib" / "modules" / "6.1.0-50-amd64").mkdir(parents=True)
    assert fetch.find_unpacked(KERNELS["6.1"]) is None
    (root / image).touch()
    found = fetch.find_unpacked(KERNELS["6.1"])
    assert found == fetch.Unpacked("6.1.0-50-amd64", root)
    assert found.vmlinuz == root / image


def test_without_apt_the_refusal_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VmtestError, match=r"^cannot run apt-get: it is not installed; install"):
        fetch.fetch(KERNELS["6.1"])
