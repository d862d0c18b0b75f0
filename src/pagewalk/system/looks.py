"""Look several times at what moves, and choose the look with the least doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pagewalk.account.ledger import FRAMES_CHANGED, frames_changed

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.system.group import Group
    from pagewalk.system.look import Ram

    Found = TypeVar("Found", Ram, Group)

LOOKS = 4  # at most


def closest(look: Callable[[], Found], *, steady: bool = False) -> Found:
    """Look as long as anything is unexplained, and return the look with the least doubt.

    With ``steady`` also as long as a residue that frames which changed would explain is the same in
    every look: if it is in all of LOOKS, it did not move, and is unexplained.
    """
    looks = [look()]
    while len(looks) < LOOKS and (doubt(best(looks).lines)[0]
                                  or (steady and unmoved([one.lines for one in looks]))):
        looks.append(look())
    chosen = best(looks)
    if not steady or len(looks) < LOOKS:
        return chosen
    same = unmoved([one.lines for one in looks])
    return chosen._replace(lines=[unexplained(line) if line.against in same else line
                                  for line in chosen.lines])


def best(looks: Sequence[Found]) -> Found:
    """Return the look with the least doubt."""
    return min(looks, key=lambda one: doubt(one.lines))


def doubt(lines: Sequence[Line]) -> tuple[int, int]:
    """Return how many lines are unexplained, and the bytes that are said to have moved."""
    return (sum(1 for line in lines if line.unexplained),
            sum(abs(frames_changed(line)) for line in lines))


def unmoved(looks: Sequence[Sequence[Line]]) -> set[str]:
    """Return the lines with a residue that is the same, to the byte, in all ``looks``."""
    first, *others = ({line.against: frames_changed(line) for line in lines} for lines in looks)
    return {name for name, moved in first.items()
            if moved and all(other.get(name) == moved for other in others)}


def unexplained(line: Line) -> Line:
    """Return ``line`` without what frames that changed would explain."""
    return line._replace(causes=tuple(one for one in line.causes if one.cause != FRAMES_CHANGED),
                         unexplained=(line.unexplained or 0) + frames_changed(line))
