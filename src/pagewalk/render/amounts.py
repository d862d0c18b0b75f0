"""Amounts and times as text: KiB, or K, M and G for people, or KiB to the byte for the ledger."""

from contextvars import ContextVar
from typing import NamedTuple


class Style(NamedTuple):
    """How amounts are written: ``human`` in K, M and G, else in KiB; ``grouped`` by thousands.

    ``color``: always, never, or auto, where the environment and the stream decide.
    """

    human: bool = False
    grouped: bool = False
    color: str = "auto"


PLAIN_STYLE = Style()
STYLE: ContextVar[Style] = ContextVar("STYLE", default=PLAIN_STYLE)


def kib(amount: int | None) -> str:
    """Return bytes as KiB, or in the unit that STYLE asks for; ``n/a`` if withheld."""
    style = STYLE.get()
    if amount is None:
        return "n/a"
    return human(amount) if style.human else grouped(f"{amount / 1024:,.0f}", style)


def size(amount: int | None) -> str:
    """Return bytes with their unit, for a sentence."""
    return kib(amount) if STYLE.get().human or amount is None else f"{kib(amount)} KiB"


def many(count: int, word: str, ending: str = "s") -> str:
    """Return how many there are: ``1 other``, ``3 others``, ``2 processes``."""
    return f"{count} {word}{'' if count == 1 else ending}"


def times(count: int) -> str:
    """Return how often: ``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def human(amount: int) -> str:
    """Return bytes in the largest binary unit that leaves a digit before the point: ``1.6G``."""
    value, unit = amount / 1024, "K"
    for unit in "KMGTP":
        if abs(value) < 999.5 or unit == "P":
            break
        value /= 1024
    if not amount:
        return "0"
    short = abs(value) < 9.95 and not (unit == "K" and amount % 1024 == 0)
    return f"{value:.1f}{unit}" if short else f"{value:.0f}{unit}"


def brief(nanoseconds: int) -> str:
    """Return a short time, which is never written as none: ``40 µs``, ``0.2 ms``, ``12.5 ms``."""
    if nanoseconds < 100_000:
        return f"{-(-nanoseconds // 1000)} µs"
    return f"{nanoseconds / 1e6:.1f} ms"


def grouped(number: str, style: Style) -> str:
    # In a pipe a blank would end a field.
    return number.replace(",", " " if style.grouped else "")


def kib_exact(amount: int | None) -> str:
    """Return bytes as KiB to four decimals, enough to show a single byte: 1536 is ``1.5``."""
    if amount is None:
        return "n/a"
    whole, rest = divmod(abs(amount), 1024)
    sign = "-" if amount < 0 else ""
    part = f"{rest / 1024:.4f}".rstrip("0").removeprefix("0") if rest else ""
    return grouped(f"{sign}{whole:,}{part}", STYLE.get())


def when(at_ns: int) -> str:
    """Return a time, nanoseconds since 1970, in UTC, to the millisecond."""
    from datetime import UTC, datetime  # a live process has no time

    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at_ns // 10**6 % 1000:03} UTC"
