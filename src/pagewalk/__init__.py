"""pagewalk: where a Linux process's memory lives, page by page."""

from pagewalk.account import Table, by_vma
from pagewalk.walk import Walk, walk

__all__ = ["Table", "Walk", "by_vma", "walk"]
