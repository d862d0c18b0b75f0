"""Which allocators a process has loaded besides glibc's, by the names of its libraries."""

from __future__ import annotations

import re

from pagewalk.model.columns import VMAs

LIBRARIES = {
    "jemalloc": re.compile(r"/libjemalloc[^/]*$"),
    "tcmalloc": re.compile(r"/libtcmalloc[^/]*$"),
    "mimalloc": re.compile(r"/libmimalloc[^/]*$"),
    "snmalloc": re.compile(r"/libsnmalloc[^/]*$"),
    "Hoard": re.compile(r"/libhoard[^/]*$"),
    "musl": re.compile(r"/(ld-musl-|libc\.musl-)[^/]*$|-musl/libc\.so$"),
    "bionic": re.compile(r"/bionic/libc\.so$"),
}


def loaded(vmas: VMAs) -> list[str]:
    """Return the names of the other allocators among the libraries that ``vmas`` map."""
    names = {name for name in vmas.name if name.startswith("/")}
    return [allocator for allocator, spelling in LIBRARIES.items()
            if any(spelling.search(name) for name in names)]
