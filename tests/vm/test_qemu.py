"""QEMU's command line, and the supervision of its process (any process will do for that)."""

import io
import time
from pathlib import Path

import pytest
from vmtest.__main__ import main
from vmtest.errors import VmtestError
from vmtest.kernels import KERNELS, Kernel
from vmtest.qemu import boot, kernel_cmdline, qemu_argv


def options(argv: list[str]) -> dict[str, list[str]]:
    """Group QEMU's arguments by option; an option without a value has none."""
    grouped: dict[str, list[str]] = {}
    for word in argv[1:]:
        if word.startswith("-"):
            name = word
            grouped.setdefault(name, [])
        else:
            grouped[name].append(word)
    return grouped


def test_options_of_the_row_reach_the_kernel() -> None:
    kernel = Kernel("x", "p", "s", 4, ("lockdown=integrity", "transparent_hugepage=always"))
    words = kernel_cmdline(kernel).split()
    assert words[-2:] == ["lockdown=integrity", "transparent_hugepage=always"]
    assert "panic=-1" in words


@pytest.mark.parametrize(("name", "la57"), [("6.1", "off"), ("6.1-la57", "on")])
def test_the_cpu_has_the_levels_of_the_row(name: str, la57: str) -> None:
    argv = qemu_argv(KERNELS[name], Path("/k"), Path("/x"), memory=3 << 30, cpus=2)
    assert options(argv)["-cpu"] == [f"max,la57={la57},avx2=off,erms=off,fsrm=off"]
    assert options(argv)["-m"] == ["3072M"]


def test_the_root_is_shared_read_only_and_a_comma_in_a_path_is_doubled() -> None:
    argv = qemu_argv(KERNELS["6.1"], Path("/k"), Path("/tmp/a,b"), memory=1 << 30, cpus=1)
    root, exchange = options(argv)["-fsdev"]
    assert "path=/," in root
    assert root.endswith(",readonly=on")
    assert "path=/tmp/a,,b," in exchange
    assert "readonly" not in exchange


def test_output_is_copied_as_it_comes_and_nothing_is_lost(tmp_path: Path) -> None:
    script = f"for i in 1 2 3; do echo line $i >>{tmp_path}/stdout; sleep 0.2; done"
    echo = io.StringIO()
    boot(["sh", "-c", script], tmp_path, timeout=30, echo=echo)
    assert echo.getvalue() == "line 1\nline 2\nline 3\n"


def test_a_guest_that_hangs_is_killed_and_its_console_quoted(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("booting\nwaiting for a disk\n")
    began = time.monotonic()
    with pytest.raises(VmtestError, match=r"did not finish within 0 s; .*waiting for a disk"):
        boot(["sleep", "60"], tmp_path, timeout=0.3, echo=None)
    # Far below the process's 60 s, and far above the limit of 0.3 s even on a busy machine.
    assert time.monotonic() - began < 30


def test_a_failure_of_qemu_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(VmtestError, match=r"failed with 1: no such machine$"):
        boot(["sh", "-c", "echo no such machine >&2; exit 1"], tmp_path, timeout=30, echo=None)


def test_without_qemu_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", "6.1", "--", "true"]) == 1
    assert capsys.readouterr().err == (
        "vmtest: cannot boot a kernel: qemu-system-x86_64 is not installed; "
        "install the packages in vmtest/packages.txt\n"
    )


def test_an_unknown_kernel_is_one_sentence_with_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "2.4", "--", "true"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("vmtest: no kernel '2.4' in the table; choose from 6.1, ")
    assert said.count("\n") == 1
