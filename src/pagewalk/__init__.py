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

    from pagewalk.account.table import COLUMNS, Table, by_vma, table
    from pagewalk.model.columns import Amounts, Backing, Flag, Pages, State, Sums, VMAs
    from pagewalk.model.errors import (
        BadRecording,
        BadRequest,
        BadTable,
        BadTarget,
        BadText,
        NoAddressSpace,
        NotPermitted,
        PackageMissing,
        PagewalkError,
        ProcessGone,
        SourceUnavailable,
        Unsupported,
    )
    from pagewalk.snapshot.read import Recording, open_recording
    from pagewalk.sources import close, open_process
    from pagewalk.sources.outcome import Outcome
    from pagewalk.sources.recorded import open_recorded
    from pagewalk.walking.walk import Walk, walk

NAMES = {
    "account.table": ("COLUMNS", "Table", "by_vma", "table"),
    "model.columns": ("Amounts", "Backing", "Flag", "Pages", "State", "Sums", "VMAs"),
    "model.errors": (
        "BadRecording", "BadRequest", "BadTable", "BadTarget", "BadText", "NoAddressSpace",
        "NotPermitted", "PackageMissing", "PagewalkError", "ProcessGone", "SourceUnavailable",
        "Unsupported",
    ),
    "snapshot.read": ("Recording", "open_recording"),
    "sources": ("close", "open_process"),
    "sources.outcome": ("Outcome",),
    "sources.recorded": ("open_recorded",),
    "walking.walk": ("Walk", "walk"),
}
HOMES = {name: module for module, names in NAMES.items() for name in names}


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


__all__ = [  # in full: a type checker does not compute it
    "COLUMNS", "Amounts", "Backing", "BadRecording", "BadRequest", "BadTable", "BadTarget",
    "BadText", "Flag", "NoAddressSpace", "NotPermitted", "Outcome", "PackageMissing", "Pages",
    "PagewalkError", "ProcessGone", "Recording", "SourceUnavailable", "State", "Sums", "Table",
    "Unsupported", "VMAs", "Walk", "by_vma", "close", "open_process", "open_recorded",
    "open_recording", "table", "walk",
]
