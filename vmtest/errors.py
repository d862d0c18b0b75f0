"""The one exception of vmtest, printed as one sentence by `python -m vmtest`."""

from __future__ import annotations


class VmtestError(Exception):
    """What was tried, what went wrong and what to do, in one sentence."""
