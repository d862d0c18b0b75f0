"""pagewalk: where a Linux process's memory lives, page by page."""

from pagewalk.account import by_vma
from pagewalk.walk import walk

__all__ = ["by_vma", "walk"]
