"""The archive, read back by busybox's own cpio, and the modules that go into it."""

import lzma
import stat
import subprocess
from pathlib import Path

import pytest
from vmtest import initramfs
from vmtest.errors import VmtestError
from vmtest.fetch import Unpacked
from vmtest.initramfs import BUSYBOX, INIT, Member

needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")


@needs_busybox
def test_busybox_unpacks_what_newc_packed(tmp_path: Path) -> None:
    # Contents of 0 to 4 bytes and names of 1 to 5 characters need every padding.
    members = [Member("d", stat.S_IFDIR | 0o755)]
    members += [
        Member("d/" + "n" * size, stat.S_IFREG | 0o640, b"x" * (size - 1)) for size in range(1, 6)
    ]
    members += [
        Member("run", stat.S_IFREG | 0o755, b"#!"),
        Member("link", stat.S_IFLNK | 0o777, b"d/n"),
    ]
    subprocess.run(
        [BUSYBOX, "cpio", "-i"],
        input=initramfs.newc(members),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()} == {
        "n": b"",
        "nn": b"x",
        "nnn": b"xx",
        "nnnn": b"xxx",
        "nnnnn": b"xxxx",
    }
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert (tmp_path / "link").readlink() == Path("d/n")


@needs_busybox
def test_init_is_a_script_that_busybox_can_parse() -> None:
    done = subprocess.run([BUSYBOX, "sh", "-n", INIT], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_load_order_keeps_the_first_occurrence_and_drops_built_in_modules() -> None:
    lines = [
        "insmod /k/virtio.ko ",
        "insmod /k/virtio_pci.ko ",
        "builtin netfs",
        "insmod /k/virtio.ko ",
        "insmod /k/9p.ko.xz cache=1",
    ]
    assert initramfs.parse_show_depends(lines) == [
        Path("/k/virtio.ko"),
        Path("/k/virtio_pci.ko"),
        Path("/k/9p.ko.xz"),
    ]


def test_a_compressed_module_keeps_its_signature(tmp_path: Path) -> None:
    # The marker at the end of a signed module (include/linux/module_signature.h).
    module = b"\x7fELF" + bytes(100) + b"~Module signature appended~\n"
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(module))
    (tmp_path / "b.ko").write_bytes(module)
    assert initramfs.read_module(tmp_path / "a.ko.xz") == module
    assert initramfs.read_module(tmp_path / "b.ko") == module


def test_without_modprobe_the_refusal_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VmtestError, match=r"^cannot run modprobe: it is not installed; install"):
        initramfs.module_files(Unpacked("6.1.0", tmp_path))
