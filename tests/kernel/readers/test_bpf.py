"""The eBPF reader on this kernel: what it reads, what it refuses, what it leaves behind."""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.readers import bpf
from pagewalk.kernel.readers.bpf import REQUESTS, BpfMemory
from pagewalk.kernel.readers.memory import page_batches, read_bytes, read_pages, read_words
from pagewalk.kernel.structs.direct_map import DirectMap, own_pgd, own_phys
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.errors import SourceUnavailable
from tests.kernel.own_memory import TOKEN, token_page

pytestmark = pytest.mark.live



def test_a_token_of_our_own_is_read_through_the_direct_map(
    kernel: Kernel, direct_map: DirectMap
) -> None:
    page, address = token_page()
    phys = own_phys(kernel, direct_map, address)
    assert read_bytes(kernel.memory, phys + direct_map.base, len(TOKEN)) == TOKEN
    # A later write is seen by a later read: it is the page, not a copy.
    page[0:8] = bytes(range(8))
    words, errors = read_pages(kernel.memory, direct_map.addresses(np.array([phys], np.uint64)))
    assert not errors.any()
    assert words[0, :1].tobytes() == bytes(range(8))
    assert words[0, 1:8].tobytes() == TOKEN[8:64]


def test_each_request_has_its_own_errno(kernel: Kernel, direct_map: DirectMap) -> None:
    # User space, a non-canonical address, and between them a page of the direct map.
    good = own_pgd(kernel)
    addresses = np.array([good, 0x1000, good + 8, 0x8000_0000_0000_0000, good], np.uint64)
    words, errors = read_words(kernel.memory, addresses)
    assert errors[[0, 2, 4]].tolist() == [0, 0, 0]
    assert set(errors[[1, 3]].tolist()) <= {errno.EFAULT, errno.ERANGE}
    assert words[0] == words[4]
    with pytest.raises(OSError, match="0x1000"):
        read_bytes(kernel.memory, 0x1000, 8)
    with pytest.raises(OSError, match="cannot be read"):
        read_bytes(kernel.memory, 1 << 64, 8)


def test_more_requests_than_fit_in_one_run(kernel: Kernel) -> None:
    count = 3 * REQUESTS + 1
    addresses = np.full(count, kernel.current, np.uint64) + np.uint64(
        kernel.btf.offset("task_struct", "thread_pid")
    )
    addresses[REQUESTS] = 0
    words, errors = read_words(kernel.memory, addresses)
    expected = kernel.field("task_struct", kernel.current, "thread_pid")
    assert np.flatnonzero(errors).tolist() == [REQUESTS]
    assert (np.delete(words, REQUESTS) == expected).all()


def test_pages_are_decoded_where_the_kernel_wrote_them(kernel: Kernel) -> None:
    address = kernel.current // mmap.PAGESIZE * mmap.PAGESIZE
    addresses = np.full(600, address, np.uint64)
    owners = [words.base is not None for _, words, _ in page_batches(kernel.memory, addresses)]
    assert len(owners) > 1
    assert all(owners)


def test_a_request_of_more_than_a_page_is_refused_and_not_read_in_part(kernel: Kernel) -> None:
    addresses = np.full(2, kernel.current, np.uint64)
    lengths = np.array([8, mmap.PAGESIZE + 8], np.uint32)
    with pytest.raises(ValueError, match=f"a request of {mmap.PAGESIZE + 8} bytes"):
        list(kernel.memory.batches(addresses, lengths))


def test_closing_releases_every_descriptor_and_mapping() -> None:
    def left() -> tuple[list[str], int]:
        maps = Path("/proc/self/maps").read_text().count("anon_inode:bpf-map")
        return sorted(os.listdir("/proc/self/fd")), maps

    before = left()
    with closing(BpfMemory()) as memory:
        assert left() != before
        assert memory.current
    memory.close()
    assert left() == before


def test_an_unknown_machine_is_named_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "architecture", lambda: "s390x")
    with pytest.raises(SourceUnavailable, match=r"s390x \(only x86_64, aarch64, riscv64\)"):
        BpfMemory()
