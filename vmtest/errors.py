"""The one exception of vmtest, printed as one sentence by `python -m vmtest`."""

from __future__ import annotations


class VmtestError(Exception):
    """Say what was tried, what came back and what to do, in one sentence."""
