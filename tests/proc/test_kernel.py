"""The type numbers of swap entries, by release and configuration (include/linux/swap.h)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from pagewalk.proc import kernel
from pagewalk.proc.kernel import swap_types

FULL = {
    "CONFIG_MEMORY_FAILURE": "y", "CONFIG_MIGRATION": "y", "CONFIG_DEVICE_PRIVATE": "y",
    "CONFIG_PTE_MARKER": "y",
}
THIS = {"CONFIG_MIGRATION": "y", "CONFIG_PTE_MARKER": "y"}


@pytest.mark.parametrize(
    ("release", "config", "swap", "hwpoison", "migration", "device", "marker"),
    [
        # MAX_SWAPFILES = 32 less the numbers in use, which follow in this order.
        ((4, 14), FULL, 27, [27], [28, 29], [30, 31], []),
        ((5, 4), FULL, 27, [27], [28, 29], [30, 31], []),
        ((5, 15), FULL, 25, [25], [26, 27], [28, 29, 30, 31], []),
        ((6, 8), FULL, 23, [23], [24, 25, 26], [27, 28, 29, 30], [31]),
        ((6, 14), FULL, 23, [23], [24, 25, 26], [27, 28, 29, 30], [31]),
        ((6, 18), FULL, 24, [24], [25, 26, 27], [28, 29, 30], [31]),
        # A kernel without poison and device memory: migration is 28 to 30.
        ((6, 18), THIS, 28, [], [28, 29, 30], [], [31]),
        ((6, 18), {}, 31, [], [], [], [31]),
    ],
)
def test_types_above_the_swap_devices(
    release: tuple[int, int], config: dict[str, str], swap: int, hwpoison: list[int],
    migration: list[int], device: list[int], marker: list[int]
) -> None:
    types = swap_types(release, config)
    found = (types.hwpoison, types.migration, types.device, types.marker)
    assert [list(r) for r in found] == [hwpoison, migration, device, marker]
    assert types.swapfiles == swap


def test_in_6_1_the_marker_is_type_30_and_a_failed_swapin_31() -> None:
    types = swap_types((6, 1), FULL)
    assert (types.swapfiles, list(types.marker), list(types.swapin_error)) == (22, [30], [31])
    assert list(types.migration) == [23, 24, 25]
    assert list(types.device) == [26, 27, 28, 29]
    without = swap_types((6, 1), {"CONFIG_MIGRATION": "y"})
    assert (without.swapfiles, list(without.migration)) == (28, [28, 29, 30])
    assert len(without.marker) == 0


@pytest.mark.parametrize("release", [(5, 15), (6, 1), (6, 8), (6, 18)])
def test_without_the_configuration_only_the_sure_types_are_known(release: tuple[int, int]) -> None:
    types = swap_types(release, None)
    assert types.swapfiles == 22  # the least that any kernel leaves
    assert [*types.hwpoison, *types.migration, *types.device] == []
    assert list(types.marker) == ([31] if release >= (6, 8) else [])


@pytest.mark.parametrize("config", [FULL, THIS, {}, None])
@pytest.mark.parametrize("release", [(4, 14), (5, 4), (5, 15), (6, 1), (6, 8), (6, 14), (6, 18)])
def test_no_type_means_two_things(release: tuple[int, int], config: dict[str, str] | None) -> None:
    types = swap_types(release, config)
    others = (types.hwpoison, types.migration, types.device, types.marker, types.swapin_error)
    claimed = [*range(types.swapfiles), *(number for numbers in others for number in numbers)]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= set(range(32))


def test_this_kernels_release_and_machine_are_uname_s() -> None:
    name = os.uname()
    major, minor = kernel.release()
    assert name.release.startswith(f"{major}.{minor}")
    assert kernel.architecture() == name.machine


@pytest.mark.skipif(not shutil.which("setarch"), reason="setarch is not installed")
def test_the_architecture_is_the_kernels_whatever_setarch_says() -> None:
    tell = "from pagewalk.proc.kernel import architecture; print(architecture())"
    words = ["setarch", "linux32", sys.executable, "-c", tell]
    said = subprocess.run(words, check=False, capture_output=True, text=True)
    if said.returncode:
        pytest.skip(said.stderr)
    assert said.stdout.strip() == kernel.architecture()


def test_the_facts_of_this_kernel_are_what_its_own_tools_print() -> None:
    facts = kernel.read_facts()
    said = subprocess.run(["uname", "-mr"], check=True, capture_output=True, text=True).stdout
    release, machine = said.split()
    assert facts.architecture == machine
    assert release.startswith("{}.{}".format(*facts.release))
    for name, ours in (("PAGESIZE", facts.page_size), ("_NPROCESSORS_ONLN", facts.cpus)):
        asked = subprocess.run(["getconf", name], check=True, capture_output=True, text=True)
        assert int(asked.stdout) == ours


def test_the_configuration_is_not_read_before_somebody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unread(path: str) -> bytes:
        raise AssertionError(f"{path} was read")

    kernel.read_config.cache_clear()
    kernel.has_protection_keys.cache_clear()
    monkeypatch.setattr(kernel, "read_bytes", unread)
    facts = kernel.read_facts()
    monkeypatch.undo()
    assert facts.config == kernel.read_config()
    assert facts.protection_keys == kernel.has_protection_keys()
