"""explain: what is advised where something remains unexplained."""

from __future__ import annotations

from pagewalk.commands.explain import advice


def test_what_is_advised_can_be_done() -> None:
    assert advice(False, recorded=False) == "; try --freeze, which stops the target"
    assert advice(True, recorded=False) == ""
    # A recording cannot be stopped any more: explain FILE refuses --freeze.
    assert advice(False, recorded=True).startswith("; record it with --freeze")
