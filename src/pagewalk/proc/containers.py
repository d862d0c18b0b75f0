"""State files of container engines: what each container is called, and which cgroup is its own.

Some of these files belong to ordinary users: those are marked as theirs (``Record.owner``). How
they are opened is in proc/state_files.py, what is in them in proc/engines.py. Nothing here asks a
daemon.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pagewalk.model.errors import BadText
from pagewalk.proc.engines import (
    Parse,
    Record,
    is_unique,
    parse_bundle,
    parse_crun,
    parse_docker,
    parse_docker_folder,
    parse_runc,
    parse_storage,
    parse_storage_folder,
    parse_task,
)
from pagewalk.proc.files import decode_name, lines, read_bytes
from pagewalk.proc.podman import parse_bolt, parse_pods
from pagewalk.proc.state_files import Search, opened, read_file, refusal

# Bytes of one file: JSON takes up to thirty times as much while it is parsed. The engines' own have
# about half a kilobyte a container (containers.json) or ten (config.json).
LARGEST = 3 << 20


@dataclass(frozen=True)
class Records:
    """All that the state files tell, in the order of PLACES, and a sentence for what they do not.

    ``missing`` names what exists and could not be read; an engine that is not there is not missing.
    """

    rows: tuple[Record, ...] = ()
    missing: tuple[str, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, list[Record]]:
        """Rows by id, of those ids only that no two containers have: 64 random hex digits."""
        return grouped((row.id, row) for row in self.rows if is_unique(row.id))

    @cached_property
    def by_cgroup(self) -> Mapping[str, list[Record]]:
        """Rows by the path of the container's cgroup."""
        return grouped((row.cgroup, row) for row in self.rows if row.cgroup and row.id)

    @cached_property
    def by_pod(self) -> Mapping[str, list[Record]]:
        """Rows that have a pod's name, by its uid and by the path of the cgroup around theirs."""
        named = [row for row in self.rows if row.pod]
        keys = ((key, row) for row in named for key in (row.pod_id, row.cgroup.rpartition("/")[0]))
        return grouped((key, row) for key, row in keys if key)


def grouped(pairs: Iterator[tuple[str, Record]]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for key, row in pairs:
        found.setdefault(key, []).append(row)
    return found


# ---- where the files are


class Place(NamedTuple):
    """Folders with ``files`` in them; the first must exist. A ``*`` stands for any part of a name.

    The part before the first ``*`` is the engine's folder, which may be a link. ``largest`` bounds
    a file, in bytes.
    """

    folders: str
    files: tuple[str, ...]
    parse: Parse
    largest: int = LARGEST


STORAGE = "var/lib/containers/storage"
USERS = ("home/*", "run/user/*")
OWN = "home/*/.local/share/containers/storage"
TASKS = "io.containerd.runtime.v2.task/*/*"
# Who knows a container's name comes before whom it has told.
PLACES = (
    Place("var/lib/docker/containers/*", ("config.v2.json",), parse_docker),
    Place(f"{STORAGE}/*-containers", ("containers.json",), parse_storage),
    Place("run/containers/storage/*-containers", ("volatile-containers.json",), parse_storage),
    Place(f"{STORAGE}/*-containers/*/userdata", ("config.json",), parse_bundle),
    # These two have all that Podman knows of each container.
    Place(STORAGE, ("db.sql",), parse_pods, 16 << 20),
    Place(f"{STORAGE}/libpod", ("bolt_state.db",), parse_bolt, 16 << 20),
    Place(f"{OWN}/*-containers", ("containers.json",), parse_storage),
    Place(f"{OWN}/*-containers/*/userdata", ("config.json",), parse_bundle),
    Place(f"run/containerd/{TASKS}", ("config.json", "init.pid"), parse_task),
    Place(f"run/docker/containerd/daemon/{TASKS}", ("config.json", "init.pid"), parse_task),
    Place(f"run/k3s/containerd/{TASKS}", ("config.json", "init.pid"), parse_task),
    Place("run/runc/*", ("state.json",), parse_runc),
    Place("run/containerd/runc/*/*", ("state.json",), parse_runc),
    Place("run/docker/runtime-runc/*/*", ("state.json",), parse_runc),
    Place("run/user/*/runc/*", ("state.json",), parse_runc),
    Place("run/crun/*", ("status", "config.json"), parse_crun),
    Place("run/user/*/crun/*", ("status", "config.json"), parse_crun),
)
# Where an engine's configuration has another folder, and the folder that it stands for.
FOLDERS = (
    ("etc/docker/daemon.json", parse_docker_folder, "var/lib/docker"),
    ("etc/containers/storage.conf", parse_storage_folder, STORAGE),
)


def read_records(root: str = "/") -> Records:
    """Read the state files of all engines below ``root``, as far as our rights go.

    Raises nothing: what is not readable is in ``missing``; what goes meanwhile is left out.
    """
    rows: list[Record] = []
    missing: list[str] = []
    search = Search(root)
    for place in (*PLACES, *moved(search)):
        said: list[str] = []
        rows += read_place(search, place, said)
        more = f", and {len(said) - 1} more of that kind" if len(said) > 1 else ""
        missing += [f"{sentence}{more}" for sentence in said[:1]]
    missing += search.said()
    return Records(tuple(located(row) for row in rows), tuple(dict.fromkeys(missing)))


def moved(search: Search) -> Iterator[Place]:
    """Yield the places of an engine that was told to keep its files in another folder."""
    for path, parse, usual in FOLDERS:
        above, _, name = path.rpartition("/")
        for folder in opened(search, above, []):
            try:
                other = parse(read_file(search, folder.fd, name, LARGEST)[0])
            except (OSError, ValueError, LookupError):
                continue  # the engine has none, or could not read it either
            if other.startswith("/") and other.strip("/") != usual and "*" not in other:
                yield from (place._replace(folders=other.strip("/") + place.folders[len(usual) :])
                            for place in PLACES if f"{place.folders}/".startswith(f"{usual}/"))


def read_place(search: Search, place: Place, said: list[str]) -> Iterator[Record]:
    # Adds to `said` what exists and was not read. What is in the folders of other users is theirs.
    silent = place.folders.startswith(USERS)
    for fd, path, stars, _ in opened(search, place.folders, [] if silent else said):
        files: dict[str, bytes] = {}
        owner = None
        for name in place.files:
            try:
                files[name], uid = read_file(search, fd, name, place.largest)
            except (FileNotFoundError, LookupError):
                continue
            except (OSError, ValueError) as error:
                said.append(refusal(f"{path}/{name}", error))
                continue
            owner = uid if uid not in (0, os.geteuid()) else owner
        first = f"{path}/{place.files[0]}"
        if place.files[0] in files:
            try:
                rows = place.parse(files, stars)
            except ValueError as error:
                said.append(refusal(first, error))
                continue
            for row in rows:
                if not search.take(owner or 0, rows=1):
                    break
                yield row._replace(where=first, owner=owner)


def located(row: Record) -> Record:
    # A pid may be another process by now: only one whose cgroup has the container's id in it is it.
    if row.cgroup or not row.pid or not is_unique(row.id):
        return row
    path = cgroup_of(row.pid)
    return row._replace(cgroup=path) if row.id in path else row


def cgroup_of(pid: int) -> str:
    """Return the path of the memory cgroup of process ``pid``, empty if it is gone or unreadable.

    The one of the memory controller's hierarchy where that is v1, else of v2 (cgroups(7)).
    """
    try:
        rows = [line.split(b":", 2) for line in lines(read_bytes(f"/proc/{pid}/cgroup"), "cgroup")]
    except (OSError, BadText):
        return ""
    told = {words[1]: words[2] for words in rows if len(words) == 3}
    old = (path for names, path in told.items() if b"memory" in names.split(b","))
    return decode_name(next(old, told.get(b"", b"")))
