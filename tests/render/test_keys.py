"""Keys as a terminal sends them, and what taking them changes of it."""

from __future__ import annotations

import os
import pty
import signal
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from pagewalk.render.keys import GONE, Keyboard, keys_of


@pytest.mark.parametrize(("typed", "keys"), [
    (b"q", ["q"]), (b"sb", ["s", "b"]), (b"\r", ["enter"]), (b"\n", ["enter"]), (b" ", [" "]),
    (b"\x1b[A\x1b[B", ["up", "down"]), (b"\x1bOA\x1bOB", ["up", "down"]),
    (b"\x1b[5~j\x1b[6~", ["page up", "j", "page down"]),
    (b"\x1b[H\x1b[F\x1b[1~\x1b[4~\x1bOH\x1bOF", ["home", "end"] * 3),
    # What is not known is left out, whole: no part of it is a key.
    (b"\x1b[15~q", ["q"]), (b"\x1b[1;5Aq", ["q"]), (b"\x1bOPq", ["q"]), (b"\x1bq", ["q"]),
    (b"\x00\x7f\xc3\xa9\xff", []), (b"", []),
])
def test_what_a_terminal_sends_is_a_key(typed: bytes, keys: list[str]) -> None:
    assert keys_of(typed) == keys


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Return a terminal: the end of whoever types, and that of the program."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for fd in (ours, theirs):
        os.close(fd)


def test_keys_come_one_by_one_and_the_terminal_is_given_back(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    keyboard = Keyboard(theirs)
    keyboard.take()
    os.write(ours, b"s\x1b[B")
    assert not keyboard.wait(10)  # no new size
    assert keyboard.pressed() == ["s", "down"] and keyboard.pressed() == []
    os.write(ours, b"\x03")  # Ctrl-C stays a signal, for whoever the terminal controls
    assert termios.tcgetattr(theirs)[3] & termios.ISIG
    for _ in range(2):
        keyboard.give_back()
        assert termios.tcgetattr(theirs) == before


def test_a_closed_terminal_has_no_more_keys(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    keyboard = Keyboard(theirs)
    keyboard.take()
    spare = os.dup(ours)
    os.close(ours)
    os.dup2(os.open(os.devnull, os.O_RDONLY), ours)
    os.close(spare)
    assert keyboard.pressed() == [GONE]
    keyboard.give_back()  # nothing to give back: no error


@pytest.mark.parametrize("early", [True, False])
def test_a_new_size_ends_the_wait_whenever_it_comes(
    terminal: tuple[int, int], early: bool
) -> None:
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    keyboard = Keyboard(terminal[1])
    # To this thread: the runner of the tests may have others, which do not block it.
    resized = threading.Timer(0 if early else 0.1, signal.pthread_kill,
                              (threading.main_thread().ident, signal.SIGWINCH))
    try:
        resized.start()
        if early:
            resized.join()
        began = time.monotonic()
        assert keyboard.wait(60)
        assert time.monotonic() - began < 50
        assert not keyboard.wait(0)
    finally:
        resized.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGWINCH, before)
