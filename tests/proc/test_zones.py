"""Zones: where RAM ends, what is free, and whether there is device memory, from zoneinfo's text.

The format is that of zoneinfo_show_print (mm/vmstat.c).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.proc import zones
from pagewalk.proc.zones import Memory, Zone, memory_of, parse_zones, read_memory, read_zones

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
        low      37
        high     44
        promo    51
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
        min      2113
        low      2885
        high     3657
        spanned  1048576
        present  1048576
        managed  1012345
        protection: (0, 0, 0, 0, 0)
  pagesets
    cpu: 0
              count:    9600
              high:     10085
              batch:    63
              high_min: 10085
  vm stats threshold: 24
    cpu: 1
              count:    401
              high:     10274
              batch:    63
              high_min: 10085
  vm stats threshold: 36
  node_unreclaimable:  0
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        boost    0
        min      32
        low      32
        high     32
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
Node 1, zone   Normal
  pages free     17
        min      5
        low      6
        high     7
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


ZONE = b"""\
Node 0, zone   Normal
  pages free     3
        min      3
        low      3
        high     3
        spanned  40
        present  3
        managed  3
"""


def test_each_zone_has_its_own_start_and_span() -> None:
    assert [zone[:4] for zone in parse_zones(WITH_DEVICE)] == [
        (0, "DMA", 1, 4095),
        (0, "Normal", 4096, 1048576),
        (0, "Movable", None, 0),
        (1, "Normal", 2097152, 32768),
        (1, "Device", None, 65536),
    ]


def test_a_zone_has_its_own_numbers() -> None:
    dma, normal, movable, *_ = parse_zones(WITH_DEVICE)
    assert dma == Zone(
        node=0, name="DMA", start=1, spanned=4095, present=3998, managed=3840, free=3840, min=30,
        low=37, high=44, boost=0, protection=(0, 3019, 8395, 8395, 8395), listed=0, threshold=4,
        cpus=1,
    )
    # older kernels show no boost; the high of a list of a CPU is no watermark
    assert (normal.boost, normal.high, normal.free) == (None, 3657, 260470)
    assert (normal.listed, normal.threshold, normal.cpus) == (9600 + 401, 36, 2)
    assert (movable.listed, movable.threshold, movable.cpus) == (0, 0, 0)


def test_ram_ends_with_its_last_zone_and_a_device_is_reported() -> None:
    assert memory_of(parse_zones(WITH_DEVICE)) == Memory((2097152 + 32768) * PAGE, devices=True)


def test_without_a_device_there_is_none() -> None:
    text = WITH_DEVICE.replace(b"spanned  65536", b"spanned  0")
    assert memory_of(parse_zones(text)) == Memory((2097152 + 32768) * PAGE, devices=False)


@pytest.mark.parametrize(
    "text",
    [b"spanned 5\n", ZONE.replace(b"40", b"x"), ZONE.replace(b"40", b""), ZONE[:-1],
     ZONE.replace(b"  spanned  40\n", b""), ZONE.replace(b"low", b"lower"),
     ZONE.replace(b"Node 0", b"Node -1"), ZONE.replace(b"3", b"3" * 21)],
)
def test_invalid_zoneinfo_is_refused(text: bytes) -> None:
    assert len(parse_zones(ZONE)) == 1
    with pytest.raises(BadText, match="zoneinfo"):
        parse_zones(text)


def test_the_line_of_a_broken_zone_is_named() -> None:
    with pytest.raises(BadText, match="line 9 of zoneinfo: 'Node 0, zone Broken"):
        parse_zones(ZONE + b"Node 0, zone Broken\n")


def test_no_ram_at_all_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoneinfo").write_bytes(ZONE.replace(b"spanned  40", b"spanned  0"))
    monkeypatch.setattr(zones, "PATH", str(tmp_path / "zoneinfo"))
    with pytest.raises(SourceUnavailable, match="names no zone of RAM"):
        read_memory()


def test_without_the_file_memory_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "PATH", "/proc/no/such/file")
    assert read_memory() == Memory(None, devices=True)


def test_this_machine_has_ram() -> None:
    # iomem would say the same, but shows addresses only with CAP_SYS_ADMIN.
    assert (read_memory().ram_end or 0) >= 16 << 20


def test_this_machines_zones_add_up_to_no_more_than_they_span() -> None:
    for zone in read_zones():
        assert zone.managed <= zone.present <= zone.spanned
        assert zone.min <= zone.low <= zone.high
