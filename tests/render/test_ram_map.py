"""The picture of RAM: letters at their addresses, amounts that add up, and the document."""

from __future__ import annotations

import io
import json
import re

import pytest

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import BadRequest
from pagewalk.model.frames import Kind
from pagewalk.render import view
from pagewalk.system.ram import GROUPS
from pagewalk.system.ram_map import RamMap, map_ram
from tests.by_hand import FACTS
from tests.system.by_hand import Run, frames

EACH = 16 << 12  # 16 frames a stretch
LOW = (Run(Kind.RESERVED, 16), Run(Kind.ANON, 9), Run(Kind.BUDDY, 7), Run(Kind.FILE, 3),
       Run(Kind.BUDDY, 13), Run(Kind.BUDDY, 32), Run(Kind.SHMEM, 16))  # fmt: skip
HIGH = (Run(Kind.SLAB, 1),)
# A gap in a line, then one of whole lines: 64 stretches of 16 frames are 1024 frames.
FIRST = 1024 * 3 + 32
FOUND = map_ram(
    [frames(*LOW), frames(*HIGH, first=112), frames(*HIGH, first=FIRST)],
    [(0, 96), (112, 113), (FIRST, FIRST + 1)], 8,
)  # fmt: skip


def wrote(format_name: str, found: RamMap = FOUND, *withheld: Withheld) -> str:
    out = io.StringIO()
    view(format_name, "map")(found, FACTS, out, withheld=withheld)
    return out.getvalue()


def picture(text: str) -> list[str]:
    return text.split("\n\n")[1].splitlines()


def test_letters_stand_at_their_addresses() -> None:
    assert FOUND.shift == 4
    assert picture(wrote("text")) == [
        "0x000000  BPc..S K",
        "          no RAM for 8192 KiB",
        "0xc00000    K",
    ]


def test_amounts_add_up_and_the_largest_free_piece_is_said() -> None:
    text = wrote("text")
    rows = [line.split()[:2] for line in text.split("WHAT\n")[1].splitlines()]
    assert rows == [["36", "P"], ["12", "C"], ["64", "S"], ["8", "K"], ["208", "."], ["64", "B"],
                    ["392", "total;"]]
    assert text.startswith("392 KiB of RAM by physical address, 64 KiB each character.")
    assert "The largest piece that is free is 180 KiB, from 0x23000 on." in text
    full = map_ram([frames(Run(Kind.ANON, 4))], [(0, 4)])
    assert "No frame is free." in wrote("text", full)


@pytest.mark.parametrize(("room", "across"), [(40, 16), (50, 32), (80, 64), (300, 64)])
def test_lines_fit(room: int, across: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    whole = map_ram([frames(Run(Kind.ANON, 1 << 22))], [(0, 1 << 22)])
    text = wrote("text", whole)
    assert max(map(len, text.splitlines())) <= room
    lines = [re.fullmatch("(0x[0-9a-f]+)  (P+)", line) for line in picture(text)]
    each = (1 << 34) // 1024
    assert [(int(line[1], 16), len(line[2])) for line in lines if line] == [
        (at, across) for at in range(0, 1 << 34, across * each)
    ]


def test_json_has_bytes_of_every_stretch() -> None:
    document = json.loads(wrote("json", FOUND, Withheld("a", "b", partial=True)))
    rows = document["stretches"]
    assert [row["at"] // EACH for row in rows] == [0, 1, 2, 3, 4, 5, 7, 194]
    assert rows[1] == {"at": EACH, "processes": 9 << 12, "cache": 0, "shared": 0, "kernel": 0,
                       "free": 7 << 12, "boot": 0, "hole": 0}
    assert (rows[-1]["kernel"], rows[-1]["hole"]) == (1 << 12, 15 << 12)
    assert all(sum(row[name] for name in (*GROUPS, "hole")) == EACH for row in rows)
    assert document["groups"] == {name: sum(row[name] for row in rows) for name in GROUPS}
    assert document["total"] == sum(document["groups"].values())
    assert document["largest_free"] == {"at": 35 << 12, "bytes": 45 << 12}
    assert (document["each"], document["partial"]) == (EACH, ["a: b"])


def test_a_picture_is_no_table() -> None:
    with pytest.raises(BadRequest, match="text, json"):
        view("csv", "map")
