"""Where the files of a file system can be seen: paths in this mount namespace, or in another one.

A path inside a file system becomes one that can be opened by the mounts of its device, as far as no
other mount covers it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

from pagewalk.model.errors import BadText
from pagewalk.proc.files import read_bytes
from pagewalk.proc.mounts import Mount, parse_mounts, unescaped

MOST_NAMESPACES = 256  # other mount namespaces that are looked at

Key = tuple[int, bytes]  # a device (major << 32 | minor), and a path inside its file system


class Place(NamedTuple):
    """Where a file can be seen: by ``path``, and ``also`` by others.

    Its file system's root comes before what is mounted of a part of it. ``pid`` is a process in
    whose mount namespace that holds, None for our own.
    """

    path: bytes
    also: tuple[bytes, ...]
    pid: int | None


class _Seen(NamedTuple):
    # A mount namespace: (mount, root, point) by device, and the mount on each place of another.
    by_dev: dict[int, list[tuple[Mount, bytes, bytes]]]
    covering: dict[tuple[int | None, bytes], int]
    memo: dict[bytes, int | None]


def find_places(keys: Collection[Key]) -> dict[Key, Place]:
    """Return where each of ``keys`` can be seen, without those that can be seen nowhere.

    Other namespaces are looked at only for what ours does not show. Raises BadText.
    """
    with suppress(OSError):
        return places_in(keys, read_bytes("/proc/self/mountinfo"), other_namespaces())
    return {}


def places_in(
    keys: Collection[Key], own: bytes, others: Iterator[tuple[int, bytes]]
) -> dict[Key, Place]:
    """Return what find_places does, from texts of mountinfo; ``others`` with a pid each."""
    found: dict[Key, Place] = {}
    _add(found, keys, own, None)
    left = [key for key in keys if key not in found]
    while left and (other := next(others, None)):
        pid, text = other
        _add(found, left, text, pid)
        left = [key for key in left if key not in found]
    return found


def other_namespaces() -> Iterator[tuple[int, bytes]]:
    """Yield (pid, mountinfo) for each mount namespace but ours, by a process in it."""
    seen = {_namespace("self")}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if len(seen) > MOST_NAMESPACES:
            return
        with suppress(OSError):
            namespace = _namespace(entry)
            if namespace not in seen:
                seen.add(namespace)
                yield int(entry), read_bytes(f"/proc/{entry}/mountinfo")


def _namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _add(found: dict[Key, Place], keys: Collection[Key], text: bytes, pid: int | None) -> None:
    try:
        seen = _read(text)
    except BadText:
        if pid is None:
            raise
        return  # another process has what mounts it likes
    for dev, path in keys:
        paths = list(_paths(seen, dev, path))
        if paths:
            found[dev, path] = Place(paths[0], tuple(dict.fromkeys(paths[1:])), pid)


def _read(text: bytes) -> _Seen:
    mounts = parse_mounts(text)
    ids = {mount.id for mount in mounts}
    by_dev = defaultdict(list)
    covering: dict[tuple[int | None, bytes], int] = {}
    for mount in mounts:
        root, point = unescaped(mount.root).rstrip(b"/"), unescaped(mount.point)
        by_dev[mount.dev].append((mount, root, point.rstrip(b"/")))
        # A process in a chroot does not see what its root is mounted on.
        covering[mount.parent if mount.parent in ids - {mount.id} else None, point] = mount.id
    for of_device in by_dev.values():
        of_device.sort(key=lambda row: len(row[1]))
    return _Seen(dict(by_dev), covering, {})


def _paths(seen: _Seen, dev: int, path: bytes) -> Iterator[bytes]:
    for mount, root, point in seen.by_dev.get(dev, ()):
        if path == root or path.startswith(root + b"/"):
            full = (point + path[len(root) :]).rstrip(b"/") or b"/"
            if _mount_of(seen, full) == mount.id:
                yield full


def _mount_of(seen: _Seen, path: bytes) -> int | None:
    # The mount that `path` leads to, found as the kernel does: folder by folder from the root on
    # (fs/namei.c), and from a mount point to what is mounted there.
    folder, names = path, []
    while folder not in seen.memo and folder != b"/":
        parent, _, _ = folder.rpartition(b"/")
        names.append(folder)
        folder = parent or b"/"
    if folder not in seen.memo:
        seen.memo[b"/"] = _through(seen, None, b"/")
    here = seen.memo[folder]
    for name in reversed(names):
        here = _through(seen, here, name)
        if name != path:
            seen.memo[name] = here
    return here


def _through(seen: _Seen, here: int | None, path: bytes) -> int | None:
    for _ in seen.covering:
        on_top = seen.covering.get((here, path))
        if on_top is None:
            break
        here = on_top
    return here
