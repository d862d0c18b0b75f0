"""One real boot, if QEMU is installed and the kernel has been fetched."""

import shutil
import sys
from pathlib import Path

import pytest
from vmtest.fetch import find_unpacked
from vmtest.kernels import KERNELS
from vmtest.qemu import QEMU
from vmtest.run import Result, run_in_vm

KERNEL = KERNELS["6.12-la57"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(
        shutil.which(QEMU) is None or find_unpacked(KERNEL) is None,
        reason=f"needs {QEMU} and: python -m vmtest fetch {KERNEL.name}",
    ),
]

# mmap honours a hint above 1 << 47 only if the kernel runs with five levels of page tables.
SCRIPT = """
import ctypes, os, pathlib, sys
mmap = ctypes.CDLL(None, use_errno=True).mmap
mmap.restype, mmap.argtypes = ctypes.c_uint64, [ctypes.c_uint64] * 6
PROT_READ, MAP_PRIVATE_ANONYMOUS = 1, 0x22
address = mmap(1 << 50, 4096, PROT_READ, MAP_PRIVATE_ANONYMOUS, 2**64 - 1, 0)
output = pathlib.Path(os.environ["VMTEST_OUTPUT"])
(output / "facts").write_text(f"{os.uname().release} {address:#x} {os.getuid()}")
pathlib.Path(sys.argv[1]).write_text("from the guest")
print("to stdout")
print("to stderr", file=sys.stderr)
sys.exit(9)
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a file on the host that the guest writes to."""
    return tmp_path_factory.mktemp("host") / "trace"


@pytest.fixture(scope="module")
def result(trace: Path) -> Result:
    """Run SCRIPT in a guest."""
    return run_in_vm(KERNEL, [sys.executable, "-c", SCRIPT, str(trace)], timeout=900)


def test_exit_code_and_both_streams_come_back(result: Result) -> None:
    assert result.returncode == 9
    assert result.stdout == "to stdout\n"
    assert result.stderr == "to stderr\n"


def test_the_guest_runs_the_fetched_kernel_as_root_with_five_levels(result: Result) -> None:
    unpacked = find_unpacked(KERNEL)
    assert unpacked is not None
    assert result.files["facts"].decode() == f"{unpacked.release} {1 << 50:#x} 0"


def test_the_host_keeps_its_files(result: Result, trace: Path) -> None:
    assert result.returncode == 9
    assert not trace.exists()
