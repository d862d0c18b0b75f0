"""A server and two workers that share most of what it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from pagewalk.model.columns import Withheld
from pagewalk.proc.objects import Object
from pagewalk.proc.processes import Process
from pagewalk.system.mappers import Frame, Mapper, Who
from pagewalk.system.members import AMOUNTS, Looked, Member, Tried
from pagewalk.system.overview import Overview, Row
from pagewalk.system.peak import Highest, Peak
from pagewalk.system.share import Child, Share
from pagewalk.system.top import Line, Top
from tests.system.by_hand import ram

MIB = 1 << 20


def member(pid: int, parent: int, name: str, *amounts: int | None) -> Member:
    """Return a member with ``amounts`` in MiB: rss, pss, uss and freed; all others are 0."""
    told = dict.fromkeys(AMOUNTS, 0) | dict(zip(("rss", "pss", "uss", "freed"), (
        None if amount is None else amount * MIB for amount in amounts), strict=True))
    return Member((pid,), name, f"/srv/{name}", parent, told, MIB, {"[heap]": 9 * MIB}, 1000)


def family(*, frames: bool = True, **changed: Any) -> Share:
    """Return three members; without ``frames`` only what their own counters tell."""
    both = np.array([[0, 40, 30], [40, 0, 30], [30, 30, 0]]) * MIB
    looked = Looked((
        member(10, 1, "server", 60, 25, 12, 10), member(11, 10, "worker", 50, 20, 4, 4),
        member(12, 10, "worker", 50, 22, 8, 8)), Tried("ebpf", (), (), 0, ()))
    made = Share(
        looked=looked, held=80 * MIB, freed=70 * MIB, elsewhere=5 * MIB, seen=True, both=both,
        objects=(Object(1, 5, "/memfd:cache (deleted)", 6 * MIB, linked=False),),
        children=(Child(11, 10, 40 * MIB, {"[heap]": 3 * MIB, "": MIB}, 5 * MIB),
                  Child(12, 10, 30 * MIB, {"[heap]": 6 * MIB, "": MIB, "/lib/x.so": MIB}, 9 * MIB)),
        one_more=9 * MIB, withheld=(),
        peak=Peak(85 * MIB, Highest(170 * MIB, 3 * MIB), "/app", 200 * MIB, ()),
    )
    if not frames:
        hidden = Withheld("held, freed", "frames are hidden\nrun as root", partial=True)
        made = made._replace(
            held=None, freed=None, elsewhere=None, both=None, one_more=None, children=(),
            objects=(),
            peak=Peak(None, Highest().without("frames are hidden"), None, None, (hidden,)),
            looked=looked._replace(tried=looked.tried._replace(
                not_looked=((13, "it is another user's"),), gone=(14,))),
            withheld=(hidden,))
    return made._replace(**changed)


def with_members(*members: Member, **changed: Any) -> Share:
    """Return a set of other ``members``, none of which is a child of another."""
    looked = family().looked._replace(members=members)
    return family(looked=looked, children=(), one_more=None, **changed)


def top(by: str = "process", **changed: Any) -> Top:
    """Return the members of the family as lines, the first of which has grown."""
    looked = family().looked
    lines = [Line(one.pids[0] if by == "process" else one.name, one.name, 1,
                  *(one.amounts[name] for name in ("uss", "pss", "rss", "swap")))
             for one in looked.members]
    lines[0] = lines[0]._replace(grown=5 * MIB)
    return Top(by, tuple(lines), looked)._replace(**changed)


def overview(*, frames: bool = True, **changed: Any) -> Overview:
    """Return all of RAM and the members of the family, and one that was not walked.

    Without ``frames`` none was walked.
    """
    looked = family().looked
    rows = [Row(one.pids[0], *(one.amounts[name] for name in ("rss", "uss", "pss", "swap")),
                one.name, one.program, one.owner, "", f"{one.program} --quick")
            for one in looked.members]
    rows.append(Row(9, MIB, None, None, None, "small", "small", 0, "", ""))
    if not frames:
        rows = [row._replace(uss=None, pss=None, swap=None) for row in rows]
    all_ram = ram(frames=frames)._replace(mapped=80 * MIB)
    made = Overview(all_ram, tuple(rows), looked if frames else None,
                    (Process(9, "small", "small", 0, MIB),) if frames else (), all_ram.withheld)
    return made._replace(**changed)


def who(*, of_file: bool = True, **changed: Any) -> Who:
    """Return two mappings of a file, or of the page of it that is mapped twice."""
    maps = [Mapper((10,), "server", 0x7F0000000000, 60 * MIB, 5, 0, "/lib/x.so", 8 * MIB, 4 * MIB),
            Mapper((11, 12), "worker", 0x7F0000001000, 4 * MIB, 1, 4096, "/lib/x.so", MIB, MIB)]
    frame = None if of_file else Frame(0x1234, 1 << 5 | 1 << 11, 2, "/app", 0)
    if not of_file:
        maps = [one._replace(size=4096, rss=None, pss=None) for one in maps]
    asked = "/lib/x.so" if of_file else "frame 0x1234"
    return Who(asked, frame, tuple(maps), Tried("ebpf", (), (), 0, ()))._replace(**changed)
