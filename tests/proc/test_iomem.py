"""/proc/iomem: where RAM is, on lines written by hand."""

from __future__ import annotations

import pytest

from pagewalk.model.errors import BadText, NotPermitted
from pagewalk.proc import iomem

TEXT = b"""00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
  01000000-0220bb07 : Kernel code
100000000-63fffffff : System RAM
4000000000-7fffffffff : PCI Bus 0000:00
"""


def test_ranges_are_whole_frames_of_system_ram() -> None:
    assert iomem.parse_ranges(TEXT) == [(1, 0x9F), (0x100, 0xC0000), (0x100000, 0x640000)]


def test_a_range_below_a_page_is_no_frame() -> None:
    assert iomem.parse_ranges(b"00000001-00001ffe : System RAM\n") == []


def test_an_indented_range_is_part_of_another() -> None:
    text = b"00000000-0fffffff : Reserved\n  00001000-00002fff : System RAM\n"
    assert iomem.parse_ranges(text) == []


@pytest.mark.parametrize("text", [b"nonsense\n", TEXT[:-1], b"0-fff System RAM\n"])
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(BadText):
        iomem.parse_ranges(text)


def test_addresses_hidden_from_users_are_no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = b"00000000-00000000 : System RAM\n"
    monkeypatch.setattr(iomem, "read_bytes", lambda path: hidden)
    with pytest.raises(NotPermitted, match="CAP_SYS_ADMIN"):
        iomem.read_ranges()
