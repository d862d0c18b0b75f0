"""How the unit tests state a rule that holds for every input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings


def always(*strategies: Any, examples: int = 40) -> Callable[[Any], Any]:
    """Return hypothesis's ``given`` for quick tests: few examples, and no deadline.

    A busy machine makes any single example slow; that says nothing about the rule.
    """

    def decorate(test: Any) -> Any:
        return settings(max_examples=examples, deadline=None)(given(*strategies)(test))

    return decorate
