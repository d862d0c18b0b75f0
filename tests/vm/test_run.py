"""The script that runs in the guest, and the results that are read back."""

import os
import shlex
from pathlib import Path

import pytest
from vmtest.__main__ import pytest_argv
from vmtest.errors import VmtestError
from vmtest.kernels import KERNELS
from vmtest.run import guest_environment, read_result, start_script, until_started

AWKWARD = ["printf", "%s\n", "two words", "it's", "$HOME", "a\nnewline", "*", ""]


def test_a_shell_passes_on_the_arguments_and_variables_unchanged() -> None:
    script = start_script(AWKWARD, {"A": "b c"}, Path("/"), Path("/m"))
    # The command may span several lines of the script, so split all of it as a shell does.
    words = shlex.split(script)
    first = words.index("env")
    assert words[first : first + 3 + len(AWKWARD)] == ["env", "-i", "A=b c", *AWKWARD]


def test_the_directory_and_the_kernels_files_may_have_spaces() -> None:
    lines = start_script(["true"], {}, Path("/my work"), Path("/my cache")).splitlines()
    assert "cd '/my work'" in lines
    assert "mount --bind '/my cache/lib/modules' /lib/modules" in lines
    assert "mount --bind '/my cache/boot' /boot" in lines


def test_the_guest_is_told_where_it_is() -> None:
    variables = guest_environment(KERNELS["6.12-la57"])
    assert variables["VMTEST_KERNEL"] == "6.12-la57"
    assert variables["VMTEST_LEVELS"] == "5"


def test_a_result_is_read_from_the_exchange_directory(tmp_path: Path) -> None:
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "a").write_bytes(b"\0\xff")
    texts = {"started": "", "stdout": "out", "stderr": "err", "returncode": "7\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    os.utime(tmp_path / "started", (0, 1012.5))
    os.utime(tmp_path / "returncode", (0, 1013.75))
    result = read_result(tmp_path, 1000.0)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out", "err")
    assert result.files == {"deep/a": b"\0\xff"}
    assert (result.boot_seconds, result.run_seconds) == (12.5, 1.25)


def test_a_guest_that_powered_off_early_is_an_error_with_its_last_output(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("ok\nKernel panic - not syncing: no init\n")
    with pytest.raises(VmtestError, match=r"powered off before .* Kernel panic - not syncing"):
        read_result(tmp_path, 0.0)


@pytest.mark.parametrize(("starts", "boots"), [((True,), 1), ((False, True), 2),
                                               ((False, False, True), 2)])
def test_a_kernel_that_died_while_it_booted_is_booted_once_more(
    starts: tuple[bool, ...], boots: int, tmp_path: Path
) -> None:
    booted: list[bool] = []

    def boot_once() -> None:
        booted.append(starts[len(booted)])
        if booted[-1]:
            (tmp_path / "started").touch()

    until_started(tmp_path, boot_once)
    assert len(booted) == boots


def test_short_runs_only_the_marked_tests() -> None:
    live = KERNELS["6.1"].tests
    assert pytest_argv("/py", live, short=False)[-1] == "tests/live"
    assert pytest_argv("/py", live, short=True)[-3:] == ["-m", "vmshort", "tests/live"]
    assert pytest_argv("/py", ["tests/x.py", "-x"], short=False)[-2:] == ["tests/x.py", "-x"]
