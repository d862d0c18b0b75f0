"""Which memory objects end with a set of processes: memfd, deleted tmpfs files, SysV segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
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

    def open(self) -> dict[Key, Held]:
        """Return the objects of which no single member tells whether they end with all."""
        return {key: held for key, held in self._held.items()
                if key not in self._ends and not held.object.linked}

    def ending(self, answers: Mapping[Key, bool | None]) -> tuple[list[Object], list[Object]]:
        """Return the objects that end with all members, and those of which that is not known.

        ``answers`` say it of those that are ``open``, None where it is not known.
        """
        said: dict[Key, bool | None] = {**dict.fromkeys(self._held, False),
                                        **dict.fromkeys(self._ends, True), **answers}
        ending = [held.object for key, held in self._held.items() if said[key]]
        unsure = [held.object for key, held in self._held.items() if said[key] is None]
        return ending, unsure


def end_with_all(held: Mapping[Key, Held], opened: Opener) -> dict[Key, bool | None]:
    """Return whether each object ends with all who are known to hold it; None: not known.

    ``opened`` opens one of these by its pid.
    """
    answers: dict[Key, bool | None] = {}
    together: dict[tuple[int, ...], list[Key]] = {}
    for key, one in held.items():
        if one.object.name.startswith(SEGMENT):
            answers[key] = segment_ends_with(one, opened)
        else:
            together.setdefault(tuple(one.pids), []).append(key)
    return answers | end_with(together, opened)


def segment_ends_with(held: Held, opened: Opener) -> bool | None:
    """Return whether a SysV segment ends with all who have it; None: not known."""
    with suppress(PagewalkError), opened(held.pids[0]) as source:
        if source.live is not None:
            return segment_ends(source.live.target, held.object, sum(held.attached))
    return None


def end_with(
    together: dict[tuple[int, ...], list[Key]], opened: Opener
) -> dict[Key, bool | None]:
    """Return whether unlinked objects end with their holders; None: not known.

    ``together`` are the objects that the same pids hold.
    """
    pids = {pid for holders in together for pid in holders}
    before, answers = holders_of(pids, opened), dict[Key, bool | None]()
    for who, keys in together.items():
        known = [holder for pid in who if (holder := before[pid]) is not None]
        answers |= dict.fromkeys(keys)
        if len(known) == len(who):
            with suppress(PagewalkError), opened(who[0]) as source:
                if source.live is not None:
                    answers |= zip(keys, source.live.ended_by(keys, known), strict=True)
    # Whoever ended meanwhile was read from memory that may be another's by now.
    after = holders_of(pids, opened)
    for who, keys in together.items():
        if any(before[pid] != after[pid] for pid in who):
            answers |= dict.fromkeys(keys)
    return answers


def holders_of(pids: Iterable[int], opened: Opener) -> dict[int, Holder | None]:
    """Return where the structs of each process are, None if that is not known."""
    found: dict[int, Holder | None] = dict.fromkeys(pids)
    for pid in found:
        with suppress(PagewalkError), opened(pid) as source:
            found[pid] = None if source.live is None else source.live.holder
    return found
