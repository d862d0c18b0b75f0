"""Podman's databases: one made by sqlite itself, one written by hand as bbolt documents it."""

from __future__ import annotations

import sqlite3
import struct

import pytest

from pagewalk.proc.engines import Record
from pagewalk.proc.podman import parse_bolt, parse_pods

A, B = "ab" * 32, "cd" * 32
# libpod/sqlite_state_internal.go
PODS = "CREATE TABLE PodConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, JSON TEXT)"


CONTAINERS = """CREATE TABLE ContainerConfig(
    ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT)"""
E, F = "e1" * 32, "f2" * 32


def database(*pods: tuple[object, object], log: bool = False) -> bytes:
    made = sqlite3.connect(":memory:")
    made.execute(PODS)
    made.execute(CONTAINERS)
    made.execute("INSERT INTO ContainerConfig VALUES (?, 'till', ?, '{}')", (E, B))
    made.execute("INSERT INTO ContainerConfig VALUES (?, 'alone', NULL, '{}')", (F,))
    made.executemany("INSERT INTO PodConfig VALUES (?, ?, '{}')", pods)
    made.commit()
    data = bytearray(made.serialize())
    made.close()
    if log:
        data[18:20] = b"\2\2"  # "file format version": 2 is a write-ahead log (fileformat2.html)
    return bytes(data)


@pytest.mark.parametrize("log", [False, True])
def test_pods_of_podman(log: bool) -> None:
    rows = parse_pods({"db.sql": database((B, "shop"), (A, "depot"), log=log)}, ())
    assert sorted(rows) == sorted([Record("podman", "", pod="shop", pod_id=B),
                                   Record("podman", "", pod="depot", pod_id=A),
                                   Record("podman", E, pod_id=B)])


def test_a_database_of_other_contents_is_refused_or_empty() -> None:
    assert parse_pods({"db.sql": database((A, b"\xff"), (B, 7))}, ())[0].pod in ("", "7")
    other = sqlite3.connect(":memory:")
    other.execute("CREATE VIEW PodConfig AS WITH RECURSIVE n(ID) AS (SELECT 1 UNION ALL SELECT ID"
                  " FROM n) SELECT ID, ID AS Name FROM n WHERE ID = 2")
    data = other.serialize()
    other.close()
    with pytest.raises(ValueError, match="interrupted"):
        parse_pods({"db.sql": data}, ())


SIZE = 4096


def page(number: int, kind: int, elements: list[bytes]) -> bytes:
    """Return a page of bbolt: kind 1 is a branch, 2 a leaf, 4 says where the newest tree is."""
    count = 0 if kind == 4 else len(elements)
    head = struct.pack("<QHHL", number, kind, count, 0)
    if kind == 4:
        return (head + elements[0]).ljust(SIZE, b"\0")
    heads, tail = b"", b""
    for at, element in enumerate(elements):
        pos = 16 * (len(elements) - at) + len(tail)
        heads += struct.pack("<L", pos).join((element[:4], element[4:12])) if kind == 2 else (
            struct.pack("<L", pos) + element[4:16])
        tail += element[12 if kind == 2 else 16 :]
    return head + heads + tail


def leaf(key: bytes, value: bytes, bucket: bool = False) -> bytes:
    return struct.pack("<LLL", bucket, len(key), len(value)) + key + value


def branch(key: bytes, below: int) -> bytes:
    return struct.pack("<LLQ", 0, len(key), below) + key


def meta(root: int, transaction: int) -> bytes:
    return struct.pack("<LLLLQQQQQ", 0xED0CDAED, 2, SIZE, 0, root, 0, 9, 10, transaction)


def bolt(*pages: tuple[int, list[bytes]], newest: int = 2) -> bytes:
    """Return a file whose two first pages say that its root is page 2; the newer one does so."""
    metas = [meta(2, newest), meta(7, 1)]
    found = [page(at, 4, [one]) for at, one in enumerate(metas)]
    found += [page(at + 2, kind, rows).ljust(SIZE, b"\0") for at, (kind, rows) in enumerate(pages)]
    return b"".join(found)


def bucket(root: int, inline: bytes = b"") -> bytes:
    return struct.pack("<QQ", root, 0) + inline


SHOP, DEPOT = leaf(B.encode(), b"shop"), leaf(A.encode(), b"depot")


def bolt_pods() -> bytes:
    return bolt(
        (2, [leaf(b"all-ctrs", bucket(6), True), leaf(b"allPods", bucket(3), True),
             leaf(b"pod", bucket(0, page(0, 2, [leaf(B.encode(), bucket(7), True)])), True)]),
        (1, [branch(A.encode(), 4), branch(B.encode(), 5), branch(A.encode(), 3)]),  # a circle
        (2, [DEPOT, leaf(b"not an id", b"x")]),
        (2, [SHOP]),
        (2, [leaf(F.encode(), b"alone")]),
        (2, [leaf(b"config", b"{}"), leaf(b"containers", bucket(8), True)]),
        (2, [leaf(E.encode(), b"till")]),
    )


def test_pods_of_an_older_podman_are_in_a_tree_of_pages() -> None:
    rows = parse_bolt({"bolt_state.db": bolt_pods()}, ())
    assert sorted(rows) == sorted([Record("podman", "", pod="shop", pod_id=B),
                                   Record("podman", "", pod="depot", pod_id=A),
                                   Record("podman", E, pod_id=B)])


def test_few_pods_are_in_the_bucket_itself() -> None:
    inline = page(0, 2, [DEPOT, SHOP])
    data = bolt((2, [leaf(b"allPods", bucket(0, inline), True)]))
    assert {row.pod for row in parse_bolt({"bolt_state.db": data}, ())} == {"shop", "depot"}


def test_no_pods_and_no_database() -> None:
    assert parse_bolt({"bolt_state.db": bolt((2, [leaf(b"ctr", bucket(3), True)]))}, ()) == []
    for data in (b"", b"x" * 100, bytes(3 * SIZE)):
        with pytest.raises(ValueError, match="is "):
            parse_bolt({"bolt_state.db": data}, ())
    with pytest.raises(ValueError, match="is cut off"):
        parse_bolt({"bolt_state.db": bolt((1, [branch(b"", (1 << 64) - 1)]))}, ())
    cut = bolt((2, [leaf(b"allPods", bucket(900), True)]))
    with pytest.raises(ValueError, match="is cut off"):
        parse_bolt({"bolt_state.db": cut}, ())
