"""The memory of BPF maps, which meminfo has no line for: each map by name."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from pagewalk.kernel.bpf.syscall import map_name, next_map, open_map
from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.files import decode_name, read_bytes

# kernel/bpf/syscall.c, bpf_map_show_fdinfo
KIND = re.compile(rb"(?m)^map_type:\t(\d{1,10})\n")
MEMLOCK = re.compile(rb"(?m)^memlock:\t(\d{1,20})\n")


class BpfMap(NamedTuple):
    """One map: its ``id``, its ``name`` (of at most 15 bytes), ``kind`` as enum bpf_map_type.

    ``memlock`` is how many bytes it takes as the kernel reckons: what it allocated since 6.4;
    before, the size of all entries, whether allocated or not. Both are None if the kernel does not
    say.
    """

    id: int
    name: str
    kind: int | None
    memlock: int | None


def read_maps() -> list[BpfMap]:
    """Return every BPF map of this kernel, by ascending id; raises SourceUnavailable.

    Only CAP_SYS_ADMIN may list them. Each is held open for a moment, one after the other.
    """
    found, at = [], 0
    try:
        while (number := next_map(at)) is not None:
            at = number
            with suppress(FileNotFoundError):  # freed meanwhile
                found.append(read_map(number))
    except OSError as error:
        why = f"cannot list them by bpf(2): {os.strerror(error.errno or 0)}"
        raise SourceUnavailable("BPF maps", why, "run as root, outside of a container") from error
    return found


def read_map(number: int) -> BpfMap:
    fd = open_map(number)
    try:
        text = read_bytes(f"/proc/self/fdinfo/{fd}")
        name = decode_name(map_name(fd))
    finally:
        os.close(fd)
    kind, memlock = (None if (found := line.search(text)) is None else int(found[1])
                     for line in (KIND, MEMLOCK))
    return BpfMap(number, name, kind, memlock)
