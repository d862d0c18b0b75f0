"""A Ctrl-C ends the program at once, wherever there is nothing to put back.

A KeyboardInterrupt would have to find its way out of whatever it meets, and some code drops it: the
start of a C extension makes an ImportError of it, numpy takes it for a missing attribute. Where
something has to be put back first, commands.put_back lets it raise one for the time.
"""

import os

# Loaded already, while the module signal takes some milliseconds.
from _signal import (  # type: ignore[import-not-found]
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)

INTERRUPTED = "interrupted; nothing was changed"


def end_at_once() -> None:
    """Let SIGINT end the program from now on, with exit code 130; one that is ignored stays so."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, leave)


def leave(*_: object) -> None:
    """Say in one line that the program was interrupted, and end it."""
    try:
        os.write(2, f"pagewalk: {INTERRUPTED}\n".encode())
    finally:
        os._exit(130)
