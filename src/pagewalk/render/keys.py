"""Keys as they are pressed on a terminal, and a window that changes its size meanwhile."""

from __future__ import annotations

import os
import re
import select
import signal
import termios
from contextlib import suppress

# What a key sends that is no character: cursor keys in both modes of xterm, and the Linux console.
SEQUENCES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1bOH": "home",
    b"\x1b[1~": "home", b"\x1b[F": "end", b"\x1bOF": "end", b"\x1b[4~": "end",
    b"\r": "enter", b"\n": "enter",
}
_KEY = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|.", re.DOTALL)
GONE = "gone"  # the terminal was closed


def keys_of(typed: bytes) -> list[str]:
    """Return the keys behind what a terminal sent: names of SEQUENCES, or ASCII characters.

    Keys of other names, and bytes that are not ASCII, are left out.
    """
    found = []
    for key in _KEY.findall(typed):
        name = SEQUENCES.get(key)
        if name is None and len(key) == 1 and 32 <= key[0] < 127:
            name = key.decode("ascii")
        if name is not None:
            found.append(name)
    return found


class Keyboard:
    """The terminal behind a descriptor: between `take` and `give_back` keys come one by one.

    Ctrl-C and Ctrl-Z remain signals.
    """

    def __init__(self, fd: int) -> None:
        self._fd, self._usual = fd, termios.tcgetattr(fd)
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def take(self) -> None:
        """Let keys come without Enter, and do not echo them."""
        with suppress(termios.error):  # hung up: `pressed` will say so
            taken = termios.tcgetattr(self._fd)
            taken[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._fd, termios.TCSANOW, taken)

    def give_back(self) -> None:
        """Make the terminal as it was; not waiting for output, which may be stopped (Ctrl-S)."""
        with suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._usual)

    def wait(self, seconds: float) -> bool:
        """Wait for a key, and return whether the window has changed its size meanwhile.

        SIGWINCH, which is blocked, is let through here only; it needs a handler.
        """
        before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGWINCH])
        try:
            select.select([self._fd, self._woken], [], [], seconds)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.set_wakeup_fd(before)
        with suppress(BlockingIOError):
            return signal.SIGWINCH in os.read(self._woken, 1 << 10)
        return False

    def pressed(self) -> list[str]:
        """Return the keys that were pressed since the last call; GONE if there will be no more."""
        found: list[str] = []
        while select.select([self._fd], [], [], 0)[0]:
            try:
                typed = os.read(self._fd, 1 << 10)
            except OSError:  # EIO: hung up
                typed = b""
            if not typed:
                return [*found, GONE]
            found += keys_of(typed)
        return found
