"""Make Ctrl-C end the program at once wherever there is nothing to put back.

A KeyboardInterrupt would have to propagate through whatever is running, and some code swallows it:
initialising a C extension turns it into an ImportError, numpy takes it for a missing attribute.
Where something has to be put back first, commands.put_back lets Ctrl-C raise one meanwhile.
"""

import os

# This module is already loaded; importing signal would take some milliseconds.
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

INTERRUPTED = "interrupted; nothing was changed"


def end_at_once() -> None:
    """Make SIGINT end the program with exit code 130 from now on, unless SIGINT is ignored."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, leave)


def leave(*_: object) -> None:
    """Say in one line that the program was interrupted, and end it."""
    try:
        os.write(2, f"pagewalk: {INTERRUPTED}\n".encode())
    finally:
        os._exit(130)
