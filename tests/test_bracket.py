"""Looking again forgives differences that move, never those that stay; and it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live import bracket
from tests.live.bracket import FIRM, Seen, look_again, looking_again, settle


def script(*looks: Seen[int]) -> Callable[[], Seen[int]]:
    """Return a look that sees ``looks`` one after the other, then repeats the last."""
    left = list(looks)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_field_that_moved_or_differed_for_a_while_is_settled_by_a_look_that_agrees() -> None:
    assert settle(script(Seen({1: "a"}, {2, 3}), Seen({}, {2, 9}), Seen({}, {1}))) == {}


def test_a_field_that_agreed_once_may_not_differ_in_the_last_look() -> None:
    assert settle(script(Seen({}, {2}), Seen({1: "a"}, set()))) == {1: "a"}


def test_a_difference_that_stays_is_firm(capsys: pytest.CaptureFixture[str]) -> None:
    assert settle(script(Seen({1: "a", 2: "b"}, set()), Seen({1: "a"}, set()))) == {1: "a"}
    assert f"{FIRM} looks:" in capsys.readouterr().out


def test_a_firm_difference_does_not_end_the_wait_for_the_rest() -> None:
    looks = [Seen({1: "a"}, {2})] * (FIRM + 5)
    assert settle(script(*looks, Seen({1: "a"}, set()))) == {1: "a"}


def test_a_field_that_never_holds_still_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bracket, "LOOKS", 40)
    assert settle(script(Seen({}, {2}))) == {2: "never held still"}


def test_a_difference_that_keeps_changing_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bracket, "LOOKS", 40)
    looks = [Seen({1: turn}, set()) for turn in range(100)]
    assert settle(script(*looks)) == {1: 39}


def test_a_look_that_fails_is_taken_again_until_it_returns() -> None:
    turns = iter(range(10))

    def look() -> int:
        turn = next(turns)
        assert turn > 5, turn
        return turn

    assert look_again(look) == 6


def test_a_lasting_failure_reports_its_history() -> None:
    turns = iter(range(1000))

    @looking_again
    def test() -> None:
        raise AssertionError("early" if next(turns) < 3 else "late")

    with pytest.raises(AssertionError, match=f"none of {FIRM} looks agreed:\n3 x early\n.* x late"):
        test()
    assert next(turns) == FIRM


def test_an_error_is_not_a_look() -> None:
    with pytest.raises(ValueError, match="broken"):
        look_again(lambda: int("broken"))
