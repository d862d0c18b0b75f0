"""Numbers for addresses, each looked up once: objects recur in most batches of frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pagewalk.model.columns import I64, U64, Bool, alike

_MOST = 1 << 20  # addresses, 16 MB: as much again while some are added


class Learned:
    """What ``learn`` (u64[n] -> i64[n]) says about addresses; it is asked about each only once.

    Beyond a million addresses it begins anew: a machine may have many more files.
    """

    def __init__(self, learn: Callable[[U64], I64]) -> None:
        self._learn = learn
        self._known = np.zeros(0, np.uint64)  # ascending
        self._says = np.zeros(0, np.int64)

    def of(self, addresses: U64) -> I64:
        """Return a number (i64) for each of ``addresses`` (u64[n])."""
        first = alike(addresses)  # neighbours are, mostly
        distinct = addresses[first]
        at, known = self._find(distinct)
        if not known.all():
            if len(self._known) > _MOST:
                self._known, self._says = self._known[:0], self._says[:0]
                return self.of(addresses)
            new = np.unique(distinct[~known])
            places = np.searchsorted(self._known, new)
            self._says = np.insert(self._says, places, self._learn(new))
            self._known = np.insert(self._known, places, new)
            at, _ = self._find(distinct)
        return np.repeat(self._says[at], np.diff(first, append=len(addresses)))

    def _find(self, addresses: U64) -> tuple[I64, Bool]:
        # Where each of them is, or would be; and whether it is there.
        at = np.searchsorted(self._known, addresses)
        known = np.zeros(len(addresses), bool)
        inside = at < len(self._known)
        known[inside] = self._known[at[inside]] == addresses[inside]
        return at, known
