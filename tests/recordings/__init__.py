"""Processes that were recorded in other kernels: record.py makes the files, `load` reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagewalk.model.columns import Pages, VMAs
from tests.kernel_says import VmaSays, parse_smaps

HERE = Path(__file__).parent
VMA_COLUMNS = ("start", "end", "perms", "offset", "dev", "inode", "backing", "flags")
PAGE_COLUMNS = (
    "addr", "size", "vma", "state", "level", "flags", "pfn", "kflags", "mapcount",
)


@dataclass(frozen=True)
class Recording:
    """A stopped process, as the walk and as smaps saw it in one kernel.

    release: (major, minor). regions: the address of each region of target.py by its name.
    counts_hwpoison: whether that kernel's smaps counts entries for lost pages.
    """

    release: tuple[int, int]
    regions: dict[str, int]
    vmas: VMAs
    pages: Pages
    smaps: list[VmaSays]
    counts_hwpoison: bool


def load(name: str) -> Recording:
    """Read the recording that was made in kernel ``name`` of vmtest's table."""
    with np.load(HERE / f"{name}.npz") as file:
        vmas = {column: file[f"vma_{column}"] for column in VMA_COLUMNS}
        pages = {column: file[f"page_{column}"] for column in PAGE_COLUMNS}
        major, minor = str(file["release"]).split(".")[:2]
        return Recording(
            (int(major), int(minor)),
            json.loads(str(file["regions"])),
            VMAs(**vmas, name=tuple(json.loads(str(file["names"])))),
            Pages(**pages, entry=np.zeros(len(pages["addr"]), np.uint64)),
            parse_smaps(file["smaps"].tobytes()),
            bool(file["counts_hwpoison"]),
        )
