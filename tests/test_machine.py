"""The set-ups of the live tests put the machine back, whatever happens in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import machine
from tests.machine import MM, MachineLacks

pytestmark = pytest.mark.live


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Keep other runs from changing a setting between our two looks at it."""
    with machine.alone():
        yield


@pytest.mark.parametrize(
    ("name", "path", "inside"),
    [
        ("ksm", MM / "ksm/run", "1"),
        ("ksm", MM / "ksm/use_zero_pages", "1"),
        ("thp", MM / "transparent_hugepage/khugepaged/scan_sleep_millisecs", "3600000"),
        ("thp", MM / "transparent_hugepage/enabled", "always [madvise] never"),
        (
            "shmem_thp",
            MM / "transparent_hugepage/shmem_enabled",
            "always within_size [advise] never deny force",
        ),
    ],
)
@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_settings_are_restored(
    name: str, path: Path, inside: str, ending: type[BaseException] | None
) -> None:
    before = path.read_text()
    try:
        with machine.prepared(name):
            assert path.read_text().strip() == inside
            if ending:
                raise ending
    except (ValueError, KeyboardInterrupt) as error:
        assert type(error) is ending
    assert path.read_text() == before


def test_zram_swaps_and_goes_away() -> None:
    with pytest.raises(KeyboardInterrupt), machine.zram(16) as device:
        assert f"{device} " in Path("/proc/swaps").read_text()
        assert Path(f"/sys/block/{device.name}/disksize").read_text() == f"{16 << 20}\n"
        raise KeyboardInterrupt
    assert f"{device} " not in Path("/proc/swaps").read_text()
    assert not Path(f"/sys/block/{device.name}").exists()


def test_hugetlb_pages_come_and_go() -> None:
    path = MM / "hugepages/hugepages-2048kB/nr_hugepages"
    before = int(path.read_text())
    with machine.hugetlb(3):
        assert int(path.read_text()) == before + 3
    assert int(path.read_text()) == before


def test_too_many_hugetlb_pages_are_a_clear_error_and_none_are_kept() -> None:
    path = MM / "hugepages/hugepages-1048576kB/nr_hugepages"
    before = path.read_text()
    # 16 TiB: more than this machine can have free.
    reason = "16384 free hugetlb pages of 1048576 kB: got only"
    with pytest.raises(MachineLacks, match=reason), machine.hugetlb(1 << 14, 1 << 20):
        pass
    assert path.read_text() == before


def test_the_missing_thing_is_named() -> None:
    reason = "/sys/kernel/mm/no_such: No such file"
    with pytest.raises(MachineLacks, match=reason), machine.setting(MM / "no_such", 1):
        pass
    before = (MM / "ksm/run").read_text()
    reason = "cannot write 7 to /sys/kernel/mm/ksm/run: Invalid"
    with pytest.raises(MachineLacks, match=reason), machine.setting(MM / "ksm/run", 7):
        pass
    assert (MM / "ksm/run").read_text() == before
