"""The pods of Podman: their names are in its database, a copy of which is read in memory."""

from pagewalk.proc.engines import MOST, Files, Record, text


def parse_pods(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the pods of Podman's db.sql (libpod/sqlite_state_internal.go), a copy in memory."""
    import sqlite3  # only where Podman keeps such a file

    data = bytearray(files["db.sql"])
    data[18:20] = b"\1\1"  # not as a write-ahead log: there is none in memory
    pods = sqlite3.connect(":memory:")
    try:
        pods.deserialize(bytes(data))
        pods.set_progress_handler(lambda: 1, 10_000_000)  # a view could run for ever
        rows = pods.execute("SELECT ID, Name FROM PodConfig LIMIT ?", (MOST,)).fetchall()
    except (sqlite3.Error, MemoryError) as error:
        raise ValueError(f"is no database of Podman: {error}") from None
    finally:
        pods.close()
    return [Record("podman", "", pod=text(name), pod_id=text(pod)) for pod, name in rows]
