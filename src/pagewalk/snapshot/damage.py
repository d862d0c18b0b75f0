"""What goes wrong while a recording is read, as a sentence: it may be cut, or made to do harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pagewalk.model.arrow import arrow
from pagewalk.model.errors import BadRecording, PagewalkError


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Turn any error that a recording's contents cause in the block into BadRecording.

    Not every relation between its values is checked when they are read: a hostile file may have
    columns of any length, and a sum that no number can hold.
    """
    try:
        yield
    except PagewalkError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AssertionError, AttributeError,
            RecursionError) as error:
        raise BadRecording(path, f"it is damaged: {first_line(error)}") from None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise BadRecording for whatever goes wrong in the block, which reads a recording."""
    pa = arrow()
    try:
        with damage(path):
            yield
    except OSError as error:
        if error.errno is not None and error.strerror is not None and not isinstance(
                error, pa.ArrowException):
            raise BadRecording(path, error.strerror.lower()) from None
        raise BadRecording(path, first_line(error)) from None
    except pa.ArrowException as error:
        raise BadRecording(path, f"it is damaged: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
