"""A result that many ask for and that is made seldom: they share the last one until it is old."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from pagewalk.model.errors import PagewalkError

Result = TypeVar("Result")
Clock = Callable[[], float]
# Between two looks nothing is done for so many times as long as the last one took, so that looking
# takes at most a tenth of one CPU.
REST = 9


class Latest(NamedTuple, Generic[Result]):
    """The last result: ``age`` in seconds since making it began, ``at`` when that was.

    ``at`` is in seconds since 1970; ``made`` is how many results there have been.
    """

    found: Result
    age: float
    at: float
    made: int


@dataclass(eq=False)
class Recent(Generic[Result]):
    """What ``look`` returns, which is only called again once that is ``every`` seconds old.

    Nor before REST times as long as it took has passed. Those who ask meanwhile get the last
    result; those who ask while it is made wait for it. A failure is a result too: PagewalkError is
    raised until it is as old.
    """

    look: Callable[[], Result]
    every: float
    clock: Clock = time.monotonic
    made: int = 0
    _found: Result | PagewalkError | None = None
    _began: float = 0.0
    _ended: float = 0.0
    _at: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def latest(self) -> Latest[Result]:
        """Return the last result, made anew if it is old; raises what ``look`` raises."""
        with self._lock:
            if self._due():
                self._again()
            found, age = self._found, self.clock() - self._began
        if isinstance(found, PagewalkError):
            raise found
        assert found is not None
        return Latest(found, age, self._at, self.made)

    def _due(self) -> bool:
        now = self.clock()
        rested = now - self._ended >= REST * (self._ended - self._began)
        return self._found is None or (now - self._began >= self.every and rested)

    def _again(self) -> None:
        self._began, self._at = self.clock(), time.time()
        self.made += 1
        try:
            self._found = self.look()
        except PagewalkError as error:
            self._found = error
        self._ended = self.clock()
