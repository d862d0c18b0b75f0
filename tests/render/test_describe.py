"""Pages in words and digits, as all outputs share them."""

from __future__ import annotations

from pagewalk.render import describe, lines
from tests import by_hand
from tests.by_hand import PAGE, ROWS

SHOWN, HIDDEN = by_hand.pages(ROWS), by_hand.pages(ROWS, frames=False)


def text(piece: describe.U8) -> list[str]:
    return lines.lines(piece).decode().splitlines()


def test_states_are_words() -> None:
    assert text(describe.states(SHOWN)) == [row[2].name.lower() for row in ROWS]


def test_only_pages_in_ram_have_an_address_a_frame_and_a_mapcount() -> None:
    present = [True, True, False, True, True, True, False, False, True, True, False, True, False]
    rows = list(zip(ROWS, present, strict=True))
    # The physical address is PFN * 4096: three more hexadecimal zeros.
    assert text(describe.physical(SHOWN, PAGE, "-")) == [
        f"{row[4]:013x}000" if here else "-" for row, here in rows
    ]
    assert text(describe.number(SHOWN, SHOWN.pfn, "null")) == [
        str(row[4]) if here else "null" for row, here in rows
    ]
    assert text(describe.number(SHOWN, SHOWN.mapcount, "?")) == [
        str(row[6]) if here else "?" for row, here in rows
    ]


def test_withheld_frames_are_never_shown_as_zero() -> None:
    for found in (
        describe.physical(HIDDEN, PAGE, "withheld"),
        describe.number(HIDDEN, HIDDEN.pfn, "withheld"),
        describe.number(HIDDEN, HIDDEN.mapcount, "withheld"),
    ):
        assert text(found) == ["withheld"] * len(ROWS)


def test_swap_is_device_and_offset() -> None:
    places = text(describe.swap_place(SHOWN, "<", ":", ">", "-"))
    assert places == ["<1:5>" if row[2].name == "SWAPPED" else "-" for row in ROWS]
    assert set(text(describe.swap_place(HIDDEN, "<", ":", ">", "-"))) == {"-"}


def test_flags_are_entry_flags_followed_by_frame_flags() -> None:
    words = text(describe.flag_words(SHOWN))
    assert words[0] == "exclusive,uptodate,lru,mmap"
    assert words[2] == ""
    assert words[5] == "anon,swapbacked,ksm"
    assert words[10] == "uffd_wp"
    assert words[11] == "pmd,exclusive,anon,swapbacked,head,thp"


def test_flags_without_frames_are_entry_flags_only() -> None:
    words = text(describe.flag_words(HIDDEN, quote='"'))
    assert (words[0], words[5], words[11]) == ('"exclusive"', "", '"pmd","exclusive"')


def test_an_unknown_frame_flag_is_shown_by_its_number() -> None:
    rows = by_hand.pages(ROWS[:1])
    assert rows.kflags is not None
    rows.kflags[0] = 1 << 12 | 1 << 55
    assert text(describe.flag_words(rows)) == ["exclusive,anon,bit55"]
