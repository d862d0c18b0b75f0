"""Recordings one after the other: what is complete counts, whatever ends the series."""

from __future__ import annotations

import time

import pytest

from pagewalk.history.record import Made
from pagewalk.history.series import record_series
from pagewalk.model.errors import BadTarget, GroupGone, NotPermitted, ProcessGone

MADE = Made("", 1, 4096, 100, 5, 0, (), (), ())


class Recorder:
    """Does what each of ``answers`` says: an error to raise, or how long to take; then ends."""

    def __init__(self, *answers: BaseException | float) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []

    def __call__(self, path: str) -> Made:
        self.paths.append(path)
        answer = self.answers.pop(0) if self.answers else ProcessGone(7, "ended")
        if isinstance(answer, BaseException):
            raise answer
        time.sleep(answer)
        return MADE._replace(path=path)


def test_it_ends_with_its_processes_and_every_place_is_another() -> None:
    record, told = Recorder(0, 0, 0), list[Made]()
    found = record_series("set", 0.01, None, record, told.append)
    assert (found.made, found.size, found.why) == (3, 300, "its processes have ended")
    assert len(told) == 3 and len(set(record.paths)) == 4
    assert all(path.startswith("set/host=") for path in record.paths)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_a_signal_is_an_end_like_any_other(end: BaseException) -> None:
    found = record_series("set", 0.01, None, Recorder(0, end), lambda _: None)
    assert (found.made, found.why) == (1, "interrupted")


def test_what_takes_long_lets_moments_pass() -> None:
    found = record_series("set", 0.05, None, Recorder(0.12, 0), lambda _: None)
    assert found.made == 2 and found.missed >= 2


def test_its_time_is_counted_in_moments() -> None:
    found = record_series("set", 0.5, 0.2, Recorder(0, 0), lambda _: None)
    assert (found.made, found.why) == (1, "its time is over")


@pytest.mark.parametrize(("error", "why"), [
    (ProcessGone(7, "ended"), "its processes have ended"),
    (GroupGone("/a"), "its cgroup was removed"),
    (BadTarget("no cgroup is called 'a'"),
     "there is nothing to record any more: no cgroup is called 'a'"),
])
def test_it_says_what_has_ended(error: Exception, why: str) -> None:
    assert record_series("set", 0.01, None, Recorder(0, error), lambda _: None).why == why


def test_a_name_that_others_have_now_is_an_error() -> None:
    twice = BadTarget("2 cgroups are called 'a'", ((1, "/a"), (2, "/b/a")))
    with pytest.raises(BadTarget, match="2 cgroups"):
        record_series("set", 0.01, None, Recorder(0, twice), lambda _: None)


def test_the_first_error_is_raised_and_so_is_what_rights_refuse_later() -> None:
    with pytest.raises(ProcessGone):
        record_series("set", 0.01, None, Recorder(), lambda _: None)
    with pytest.raises(NotPermitted):
        record_series("set", 0.01, None, Recorder(0, NotPermitted("a", "b", "c")), lambda _: None)
