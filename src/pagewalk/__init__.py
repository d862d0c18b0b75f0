"""pagewalk: where a Linux process's memory lives, page by page.

    table = pagewalk.table(pid)
    table.totals["rss"], table.columns["pss"], table.vmas.name

The names are imported when first used, so that ``pagewalk --help`` does not wait for numpy.
See docs/python-api.md.
"""

# Nothing is imported up front: little may run before __main__ can answer a Ctrl-C.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pagewalk.account import COLUMNS, Table, by_vma, table
    from pagewalk.errors import (
        BadRequest,
        BadTable,
        BadTarget,
        BadText,
        NoAddressSpace,
        NotPermitted,
        PagewalkError,
        ProcessGone,
        SourceUnavailable,
        Unsupported,
    )
    from pagewalk.outcome import Outcome
    from pagewalk.pages import Amounts, Backing, Flag, Pages, State, Sums, VMAs
    from pagewalk.walking import Walk, close, open_process, walk

HOMES = {
    "COLUMNS": "account",
    "Table": "account",
    "by_vma": "account",
    "table": "account",
    "BadRequest": "errors",
    "BadTable": "errors",
    "BadText": "errors",
    "BadTarget": "errors",
    "NoAddressSpace": "errors",
    "NotPermitted": "errors",
    "PagewalkError": "errors",
    "ProcessGone": "errors",
    "SourceUnavailable": "errors",
    "Unsupported": "errors",
    "Outcome": "outcome",
    "Backing": "pages",
    "Amounts": "pages",
    "Flag": "pages",
    "Pages": "pages",
    "State": "pages",
    "Sums": "pages",
    "VMAs": "pages",
    "Walk": "walking",
    "close": "walking",
    "open_process": "walking",
    "walk": "walking",
}


def __getattr__(name: str) -> "Any":
    # PEP 562; the name is kept, so that this runs once for each.
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module 'pagewalk' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"pagewalk.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "COLUMNS",
    "Amounts",
    "Backing",
    "BadRequest",
    "BadTable",
    "BadTarget",
    "BadText",
    "Flag",
    "NoAddressSpace",
    "NotPermitted",
    "Outcome",
    "Pages",
    "PagewalkError",
    "ProcessGone",
    "SourceUnavailable",
    "State",
    "Sums",
    "Table",
    "Unsupported",
    "VMAs",
    "Walk",
    "by_vma",
    "close",
    "open_process",
    "table",
    "walk",
]
