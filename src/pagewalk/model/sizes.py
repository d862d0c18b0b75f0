"""Amounts of memory as people write them. No I/O."""

import re

from pagewalk.model.errors import BadRequest

SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)([KMGTP]?)(?:i?B)?", re.IGNORECASE)

LEAST_BUDGET = 1 << 12  # bytes; no kernel has smaller pages


def parse_budget(text: str) -> int:
    """Return the bytes of a budget for memory; raises BadRequest, also for less than a page.

    Memory comes in pages: somebody who writes 200 means another unit.
    """
    size = parse_size(text)
    if 0 < size < LEAST_BUDGET:
        raise BadRequest(f"a budget of '{text}' is less than a page: give a size with a unit, such"
                         " as 200M, or 0")
    return size


def parse_size(text: str) -> int:
    """Return the bytes that ``200M``, ``1.5G``, ``0`` or ``4096`` mean; raises BadRequest."""
    found = SIZE.fullmatch(text)
    if not found:
        raise BadRequest(f"'{text}' is not a size; give bytes, or a number with K, M, G or T, as"
                         " 200M or 1.5G")
    whole, _, part = found[1].partition(".")
    unit = 1 << 10 * " KMGTP".index(found[2].upper() or " ")
    return int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)
