"""The pytest plugin: a fixture and a marker that give tests budgets for their memory.

pytest loads this file at every start, so all else is imported when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pagewalk.history.own_budget import Block

MARKER = (
    "memory_budget(uss=SIZE, pss=SIZE, rss=SIZE, swap=SIZE, whole=False, every=0.05): fail the test"
    " if it takes more memory than that; with whole=True, if the process has more"
)
OLDEST = (8, 0)  # of pytest: before, a wrapper could not make a test fail

# Called with the name of a property and its value.
Record = Callable[[str, object], None]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, the fixture, and what looks for the marker."""
    import pytest

    if pytest.version_tuple[:2] < OLDEST:
        return

    class MemoryBudget:
        @pytest.fixture
        def memory_budget(
            self, request: pytest.FixtureRequest
        ) -> Callable[..., AbstractContextManager[Block]]:
            """Return a context manager: with memory_budget(uss="50M", swap=0): ..."""
            return partial(kept, partial(record, request.node))

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
            marker = item.get_closest_marker("memory_budget")
            if marker is None:
                return (yield)
            if marker.args:
                import pytest

                pytest.fail(f"memory_budget takes its limits by name, such as"
                            f" uss={marker.args[0]!r}", pytrace=False)
            with kept(partial(record, item), **marker.kwargs):
                return (yield)

    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(MemoryBudget(), "pagewalk-memory-budget")


def record(item: pytest.Item, name: str, value: object) -> None:
    # As the fixture record_property does, which warns of schemas that do not allow it.
    item.user_properties.append((name, value))


@contextmanager
def kept(
    record: Record, *, whole: bool = False, every: float | None = 0.05, **limits: object
) -> Iterator[Block]:
    """Fail the test if the block exceeds one of ``limits``, by the key of budget.TITLES.

    A failure of the block itself goes first. Limits that do not exist are a sentence.
    """
    import pytest

    from pagewalk.history.own_budget import Block, budgets_of
    from pagewalk.history.verdicts import properties
    from pagewalk.model.errors import BadRequest

    try:
        budgets = budgets_of(limits)
    except BadRequest as error:  # a traceback would end in this file, which is not to blame
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    block = Block(budgets, whole=whole, every=every)
    block.begin()
    try:
        yield block
    finally:
        verdicts = block.end()
        for name, value in properties(verdicts):
            record(name, value)

    from pagewalk.render.block_words import exceeded, uncertain

    if failures := [exceeded(block, one) for one in verdicts if one.exceeded]:
        pytest.fail("\n\n".join(failures), pytrace=False)
    for sentence in uncertain(block, verdicts):
        import warnings

        warnings.warn(sentence, stacklevel=3)
