"""A Ctrl-C while there is something to put back: raised, and never lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pytest

from pagewalk.commands import put_back


class Interrupted:
    """An object that is interrupted while it is deleted, where Python ignores exceptions."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class Broken:
    """An object that cannot be deleted without an error."""

    def __del__(self) -> None:
        raise ValueError("broken")


def test_one_in_a_destructor_is_raised_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), put_back():
        Interrupted()
        reached = True
    assert reached
    assert capsys.readouterr().err == ""


def test_one_that_a_library_drops_is_raised_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), put_back(), contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)


def test_other_errors_of_destructors_are_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    with put_back():
        Broken()
    assert "ValueError: broken" in capsys.readouterr().err


def test_afterwards_everything_is_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with put_back():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert sys.unraisablehook is sys.__unraisablehook__
