"""BPF maps and the memory they take, with a map of our own among them."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from pagewalk.kernel.bpf.syscall import create_array
from pagewalk.kernel.bpf_maps import read_maps

pytestmark = pytest.mark.live

ARRAY = 2  # BPF_MAP_TYPE_ARRAY
SIZE = 1 << 20


@pytest.mark.vmshort
def test_a_map_has_its_name_its_kind_and_its_memory() -> None:
    before = {row.id for row in read_maps()}
    array = create_array(SIZE, "of_a_test")
    try:
        (ours,) = [row for row in read_maps() if row.name == "of_a_test" and row.id not in before]
        assert ours.kind == ARRAY
        # Since 6.4 struct bpf_array has a page before the values (array_map_mem_usage); up to 6.3
        # the key's four bytes are added to the value, which makes a page more too.
        assert ours.memlock == SIZE + mmap.PAGESIZE
    finally:
        os.close(array.fd)


def test_ids_ascend_and_no_descriptor_stays_open() -> None:
    array = create_array(SIZE, "of_a_test")
    try:
        before = os.listdir("/proc/self/fd")
        maps = read_maps()
        assert os.listdir("/proc/self/fd") == before
        assert maps and [row.id for row in maps] == sorted({row.id for row in maps})
    finally:
        os.close(array.fd)


def test_without_the_right_a_sentence_says_so() -> None:
    program = (
        "import os; os.setresuid(65534, 65534, 65534)\n"
        "from pagewalk.kernel.bpf_maps import read_maps\n"
        "from pagewalk.model.errors import SourceUnavailable\n"
        "try: read_maps()\n"
        "except SourceUnavailable as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"import pagewalk.kernel.bpf_maps\n{program}"],
        capture_output=True, text=True, check=True,
    )
    assert ran.stdout == (
        "source 'BPF maps' is not available: cannot list them by bpf(2): Operation not"
        " permitted; run as root, outside of a container\n"
    )
