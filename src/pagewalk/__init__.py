"""pagewalk: where a Linux process's memory lives, page by page.

    table = pagewalk.by_vma(pagewalk.walk(pid))
    table.totals["rss"], table.columns["pss"], table.vmas.name

See docs/python-api.md.
"""

from pagewalk.account import COLUMNS, Table, by_vma
from pagewalk.errors import (
    BadRequest,
    BadTable,
    BadTarget,
    NoAddressSpace,
    NotPermitted,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
    Unsupported,
)
from pagewalk.pages import Backing, Counts, Flag, Pages, State, VMAs
from pagewalk.walk import Outcome, Walk, close, open_process, walk

__all__ = [
    "COLUMNS",
    "Backing",
    "BadRequest",
    "BadTable",
    "BadTarget",
    "Counts",
    "Flag",
    "NoAddressSpace",
    "NotPermitted",
    "Outcome",
    "PagewalkError",
    "Pages",
    "ProcessGone",
    "SourceUnavailable",
    "State",
    "Table",
    "Unsupported",
    "VMAs",
    "Walk",
    "by_vma",
    "close",
    "open_process",
    "walk",
]
