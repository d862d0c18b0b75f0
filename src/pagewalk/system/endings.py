"""Which memory objects end with a set of processes: memfd, deleted tmpfs files, SysV segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from pagewalk.model.errors import PagewalkError
from pagewalk.proc.objects import SEGMENT, Object, attachments, segment_ends

if TYPE_CHECKING:
    from pagewalk.kernel.structs.holders import Holder
    from pagewalk.model.columns import VMAs
    from pagewalk.sources import Source
    from pagewalk.sources.outcome import Outcome

Key = tuple[int, int]  # (dev, inode)
Opener = Callable[[int], AbstractContextManager["Source"]]


class Held(NamedTuple):
    """An object that members hold: ``pids`` of these, and how often they have it mapped."""

    object: Object
    pids: list[int]
    attached: list[int]


class Holders:
    """The objects of a set's members, and who of them holds each."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._ends: set[Key] = set()

    def add(self, pids: Iterable[int], vmas: VMAs, outcome: Outcome) -> None:
        """Add what the members ``pids``, which have one address space, were found to hold."""
        for found, ends in outcome.objects:
            key = found.dev, found.inode
            held = self._held.setdefault(key, Held(found, [], []))
            held.pids.extend(pids)
            held.attached.append(attachments(vmas, found))
            if ends:
                self._ends.add(key)

    def ending(self, opened: Opener) -> tuple[list[Object], list[Object]]:
        """Return the objects that end with all members, and those of which that is not known.

        ``opened`` opens a member by its pid.
        """
        ending, unsure = list[Object](), list[Object]()
        for key, held in self._held.items():
            if key in self._ends:
                answer: bool | None = True
            elif held.object.linked:
                answer = False
            else:
                answer = ends_with(held, key, opened)
            if answer is not False:
                (ending if answer else unsure).append(held.object)
        return ending, unsure


def ends_with(held: Held, key: Key, opened: Opener) -> bool | None:
    """Return whether an unlinked object ends with all of its holders; None: not known."""
    try:
        holders = [holder_of(pid, opened) for pid in held.pids]
        with opened(held.pids[0]) as source:
            if source.live is None:
                return None
            if held.object.name.startswith(SEGMENT):
                return segment_ends(source.live.target, held.object, sum(held.attached))
            known = [holder for holder in holders if holder is not None]
            answer = None
            if len(known) == len(holders):
                (answer,) = source.live.ended_by([key], known)
        # Whoever ended meanwhile was read from memory that may be another's by now.
        again = [holder_of(pid, opened) for pid in held.pids]
    except PagewalkError:
        return None
    return answer if holders == again else None


def holder_of(pid: int, opened: Opener) -> Holder | None:
    with opened(pid) as source:
        return None if source.live is None else source.live.holder
