"""Podman's database, made here by sqlite itself, and others."""

from __future__ import annotations

import sqlite3

import pytest

from pagewalk.proc.engines import Record
from pagewalk.proc.podman import parse_pods

A, B = "ab" * 32, "cd" * 32
# libpod/sqlite_state_internal.go
PODS = "CREATE TABLE PodConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, JSON TEXT)"


def database(*pods: tuple[object, object], log: bool = False) -> bytes:
    made = sqlite3.connect(":memory:")
    made.execute(PODS)
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
                                   Record("podman", "", pod="depot", pod_id=A)])


def test_a_database_of_other_contents_is_refused_or_empty() -> None:
    assert parse_pods({"db.sql": database((A, b"\xff"), (B, 7))}, ())[0].pod in ("", "7")
    other = sqlite3.connect(":memory:")
    other.execute("CREATE VIEW PodConfig AS WITH RECURSIVE n(ID) AS (SELECT 1 UNION ALL SELECT ID"
                  " FROM n) SELECT ID, ID AS Name FROM n WHERE ID = 2")
    data = other.serialize()
    other.close()
    with pytest.raises(ValueError, match="interrupted"):
        parse_pods({"db.sql": data}, ())
