"""The pods of Podman: their names are in its database, a copy of which is read in memory.

That is SQLite's, or before Podman 4.8 bbolt's: a tree of pages, whose format bbolt's page.go,
meta.go and bucket.go describe.
"""

import struct
from collections.abc import Iterator

from pagewalk.proc.engines import MOST, Files, Record, is_unique, text
from pagewalk.proc.files import decode_name
from pagewalk.proc.pagemap import PAGE

# The header of a page: its number, its kind, how many elements follow, and pages it goes on for.
HEADER = struct.Struct("<QHHL")
BRANCH, LEAF = 1, 2
# An element of a leaf: 1 for a bucket, where the key is from here, the sizes of key and value. One
# of a branch: where the key is, its size, the page below.
LEAF_ELEMENT, BRANCH_ELEMENT = struct.Struct("<LLLL"), struct.Struct("<LLQ")
# Magic, version, page size, flags; the root bucket's page, its sequence; two pages, transaction.
META = struct.Struct("<LLLLQQQQQ")
MAGIC, VERSION = 0xED0CDAED, 2
# Buckets of libpod/boltdb_state_internal.go: ids to names; ids to what a pod has, its containers.
NAMES, PODS, CONTAINERS = b"allPods", b"pod", b"containers"


def parse_pods(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return pods, and which container is in which, of Podman's db.sql.

    Source: libpod/sqlite_state_internal.go.
    """
    import sqlite3  # only where Podman keeps such a file

    data = bytearray(files["db.sql"])
    data[18:20] = b"\1\1"  # not as a write-ahead log: there is none in memory
    pods = sqlite3.connect(":memory:")
    try:
        pods.deserialize(bytes(data))
        pods.set_progress_handler(lambda: 1, 10_000_000)  # a view could run for ever
        rows = pods.execute("SELECT ID, Name FROM PodConfig LIMIT ?", (MOST,)).fetchall()
        inside = pods.execute("SELECT ID, PodID FROM ContainerConfig WHERE PodID IS NOT NULL"
                              " LIMIT ?", (MOST,)).fetchall()
    except (sqlite3.Error, MemoryError) as error:
        raise ValueError(f"is no database of Podman: {error}") from None
    finally:
        pods.close()
    return [*(Record("podman", "", pod=text(name), pod_id=text(pod)) for pod, name in rows),
            *(Record("podman", text(key), pod_id=text(pod)) for key, pod in inside)]


def parse_bolt(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return pods, and which container is in which, of Podman's bolt_state.db.

    A page that is being replaced meanwhile has pods as they were: an id never gets another name.
    """
    try:
        return list(bolt_pods(files["bolt_state.db"]))
    except (struct.error, OverflowError):
        raise ValueError("is cut off") from None


def bolt_pods(data: bytes) -> Iterator[Record]:
    """Yield the records of parse_bolt; raises ValueError, struct.error, OverflowError."""
    metas = [META.unpack_from(data, at + HEADER.size) for at in (0, page_size(data))]
    good = [meta for meta in metas if meta[:2] == (MAGIC, VERSION)]
    if not good:
        raise ValueError("is no database of Podman: no page of it says what it is")
    newest = max(good, key=lambda meta: meta[-1])
    size, root = newest[2], newest[4]
    for name, top in elements(data, size, root):
        for key, value in bucket(data, size, top) if name in (NAMES, PODS) else ():
            pod = decode_name(key)
            if is_unique(pod) and name == NAMES:
                yield Record("podman", "", pod=text(decode_name(value)), pod_id=pod)
            elif is_unique(pod):
                yield from contained(data, size, pod, value)


def contained(data: bytes, size: int, pod: str, value: bytes) -> Iterator[Record]:
    for name, inner in bucket(data, size, value):
        for key, _ in bucket(data, size, inner) if name == CONTAINERS else ():
            yield Record("podman", decode_name(key), pod_id=pod)


def bucket(data: bytes, size: int, value: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Of the bucket in a leaf's value; a small one has its only page in place of a number.
    root, _ = struct.unpack_from("<QQ", value)
    return elements(data, size, root) if root else elements(value[16:], 0, 0)


def page_size(data: bytes) -> int:
    # The first page says it; if that is being written, it is the size of the machine's.
    magic, _, size = META.unpack_from(data, HEADER.size)[:3]
    return int(size) if magic == MAGIC else PAGE


def elements(data: bytes, size: int, root: int) -> Iterator[tuple[bytes, bytes]]:
    # Of the tree of pages from `root` on; each page is read once, whatever points at it.
    left, seen = [root], {root}
    found = 0
    while left and found < MOST:
        at = left.pop() * size
        _, kind, count, _ = HEADER.unpack_from(data, at)
        for number in range(count):
            if kind & LEAF:
                place = at + HEADER.size + number * LEAF_ELEMENT.size
                _, key, length, value = LEAF_ELEMENT.unpack_from(data, place)
                start = place + key
                found += 1
                yield data[start : start + length], data[start + length : start + length + value]
            elif kind & BRANCH:
                place = at + HEADER.size + number * BRANCH_ELEMENT.size
                below = BRANCH_ELEMENT.unpack_from(data, place)[2]
                left += [below] if below not in seen else []
                seen.add(below)
