"""Arrow, the columns that other programs read: the only file that imports pyarrow.

pyarrow is an optional extra, imported only when asked for.
"""

from __future__ import annotations

from typing import Any

from pagewalk.model.errors import PackageMissing


def arrow(what: str = "a recording") -> Any:
    """Return the module pyarrow; raises PackageMissing, which says that ``what`` needs it."""
    try:
        import pyarrow
    except ImportError:
        raise PackageMissing(what, "pyarrow", "snapshot") from None
    return pyarrow


def parquet(what: str = "a recording") -> Any:
    """Return the module pyarrow.parquet; raises PackageMissing."""
    arrow(what)
    import pyarrow.parquet

    return pyarrow.parquet


def dataset(what: str = "a recording") -> Any:
    """Return the module pyarrow.dataset, several files as one table; raises PackageMissing."""
    arrow(what)
    import pyarrow.dataset

    return pyarrow.dataset


def file_systems(what: str = "an object store") -> Any:
    """Return the module pyarrow.fs, file systems of object stores; raises PackageMissing."""
    arrow(what)
    import pyarrow.fs

    return pyarrow.fs
