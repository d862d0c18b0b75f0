"""What this process and its children take in a block of code, beside budgets for it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pagewalk.history.budget import TITLES, Look, MadeOf, Portion, Watched, Worst, look_at_tree
from pagewalk.history.verdicts import Verdict, verdicts
from pagewalk.model.errors import BadRequest, PagewalkError
from pagewalk.model.sizes import parse_budget
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.stall import Stall
from pagewalk.proc.tree import descendants, read_mappings, was_forked

PATIENCE = 60.0  # seconds that another process may take to describe this one


class Block:
    """A block of code with ``budgets`` in bytes by the key of TITLES.

    They are for what is there beyond what was there when it began, or with ``whole`` for all.
    A thread looks ``every`` so many seconds; None: only at the beginning and at the end.
    """

    def __init__(self, budgets: Mapping[str, int], *, whole: bool, every: float | None) -> None:
        self.every, self.whole, self.counting = every, whole, False
        self.seen = Watched(budgets, self.describe)
        self.pid, self.alone, self.stall = own_numbers()[0], not was_forked(), Stall()
        self.before: dict[int, bytes] | None = None
        self.ready, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.sample, name="pagewalk", daemon=True)

    def begin(self) -> None:
        """Take the first look, and start the thread."""
        self.began = time.monotonic()
        self.look()  # what looking takes itself is there now
        if self.every is not None:
            self.thread.start()
            self.ready.wait()
        if not self.whole:
            self.before = {pid: read_mappings(pid, self.stall) for pid in self.pids()}
        first = self.look()
        if not self.whole:
            self.seen.base = first
        self.seen.add(first)
        self.counting = True

    def end(self) -> list[Verdict]:
        """Take the last look, and return what is known of each measure."""
        self.done.set()
        if self.every is not None:
            self.thread.join()
        self.seen.add(self.look())
        return verdicts(self.seen)

    def look(self) -> Look:
        """Return what this process and its descendants hold; raises PagewalkError, OSError."""
        return look_at_tree(self.pids(), self.began, self.stall, alone=self.alone)

    def pids(self) -> list[int]:
        """Return the numbers of this process and of its descendants."""
        return [self.pid, *descendants()]

    def sample(self) -> None:
        """Look again and again, in the thread, until the block ends."""
        self.look()
        self.ready.set()
        while not self.done.wait(self.every):
            if self.counting:
                with suppress(PagewalkError, OSError):  # end() looks as well, and raises them
                    self.seen.add(self.look())

    def describe(self, measure: str, look: Look) -> Worst:
        """Return what the worst moment was made of, as another process sees it.

        Without ``whole``, of what grew. To find out takes more memory than many a block; but that
        other process maps our files too, so what is ours alone is read before it is there.
        """
        two, at = [], time.monotonic() - self.began
        if self.before is not None:
            two = [self.before, {one.pid: read_mappings(one.pid, self.stall) for one in look.holds}]
        words = [sys.executable, "-m", "pagewalk.history.made_of", measure, repr(self.began)]
        words += [str(one.pid) for one in look.holds]
        try:
            lengths = [{pid: len(text) for pid, text in each.items()} for each in two]
            texts = [text for each in two for text in each.values()]
            ran = subprocess.run(words, capture_output=True, check=True, timeout=PATIENCE,
                                 input=b"".join([json.dumps(lengths).encode(), b"\n", *texts]))
            worst = worst_of(measure, look, json.loads(ran.stdout))
            return worst if worst.made is None or not two else worst._replace(
                made=worst.made._replace(at=at))
        except (OSError, subprocess.SubprocessError, ValueError):
            return Worst(measure, look, {}, None)


def worst_of(measure: str, look: Look, told: Any) -> Worst:
    """Return a worst moment as history.made_of prints it."""
    commands = {int(pid): words for pid, words in told["commands"].items()}
    if told["made"] is None:
        return Worst(measure, look, commands, None)
    at, kinds, mappings, missing = told["made"]
    kinds, mappings = ([Portion(*row) for row in rows] for rows in (kinds, mappings))
    made = MadeOf(at, tuple(kinds), tuple(mappings), tuple(missing))
    return Worst(measure, look, commands, made)


def budgets_of(limits: Mapping[str, object]) -> dict[str, int]:
    """Return budgets in bytes, given as numbers or as sizes; raises BadRequest."""
    if not limits:
        raise BadRequest(f"a memory budget needs one of {', '.join(TITLES)}")
    if unknown := sorted(set(limits) - set(TITLES)):
        raise BadRequest(f"a memory budget has no '{unknown[0]}': it takes {', '.join(TITLES)}, and"
                         " whole and every; what page frames alone tell, as what is held or freed,"
                         " cannot have one")
    return {name: budget_of(name, limit) for name, limit in limits.items()}


def budget_of(name: str, limit: object) -> int:
    try:
        return parse_budget(str(limit))
    except BadRequest as error:
        raise BadRequest(f"memory_budget({name}={limit!r}): {error}") from None
