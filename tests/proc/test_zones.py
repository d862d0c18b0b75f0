"""Where RAM ends, and whether there is device memory, from the text of /proc/zoneinfo.

The format is that of zoneinfo_show_print (mm/vmstat.c).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import zones
from pagewalk.proc.zones import Memory, Zone, memory_of, parse_zones, read_memory

PAGE = 4096

# Two nodes, the second with persistent memory: its zone has pages, but none of them is RAM, so the
# kernel ends the zone's paragraph before start_pfn. The empty Movable zones end there too.
WITH_DEVICE = b"""\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 2
  pages free     3840
        boost    0
        min      30
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 3019, 8395, 8395, 8395)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count: 0
              high:  0
              batch: 1
  vm stats threshold: 4
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone   Normal
  pages free     260470
        spanned  1048576
        present  1048576
        managed  1012345
        protection: (0, 0, 0, 0, 0)
  node_unreclaimable:  0
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        boost    0
        min      32
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
Node 1, zone   Normal
  pages free     17
        spanned  32768
        present  32768
        managed  32000
        protection: (0, 0, 0, 0, 0)
  node_unreclaimable:  0
  start_pfn:           2097152
Node 1, zone   Device
  pages free     0
        boost    0
        min      0
        low      0
        high     0
        promo    0
        spanned  65536
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
"""


def test_each_zone_has_its_own_start_and_span() -> None:
    assert parse_zones(WITH_DEVICE) == [
        Zone("DMA", 1, 4095),
        Zone("Normal", 4096, 1048576),
        Zone("Movable", None, 0),
        Zone("Normal", 2097152, 32768),
        Zone("Device", None, 65536),
    ]


def test_ram_ends_with_its_last_zone_and_a_device_is_reported() -> None:
    assert memory_of(parse_zones(WITH_DEVICE)) == Memory((2097152 + 32768) * PAGE, devices=True)


def test_without_a_device_there_is_none() -> None:
    text = WITH_DEVICE.replace(b"spanned  65536", b"spanned  0")
    assert memory_of(parse_zones(text)) == Memory((2097152 + 32768) * PAGE, devices=False)


@pytest.mark.parametrize(
    "text",
    [b"spanned 5\n", b"Node 0, zone Normal\n  spanned x\n", b"Node 0, zone Normal\n  spanned\n",
     b"Node 0, zone Normal\n  start_pfn: -1\n", b"Node 0, zone Normal\n  spanned  40"],
)
def test_invalid_zoneinfo_is_refused(text: bytes) -> None:
    with pytest.raises(BadText, match="zoneinfo"):
        parse_zones(text)


def test_no_ram_at_all_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoneinfo").write_bytes(b"Node 0, zone Normal\n  spanned  0\n")
    monkeypatch.setattr(zones, "PATH", str(tmp_path / "zoneinfo"))
    with pytest.raises(SourceUnavailable, match="names no zone of RAM"):
        read_memory()


def test_without_the_file_memory_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "PATH", "/proc/no/such/file")
    assert read_memory() == Memory(None, devices=True)


def test_this_machine_has_ram() -> None:
    # iomem would say the same, but shows addresses only with CAP_SYS_ADMIN.
    assert (read_memory().ram_end or 0) >= 16 << 20
