"""From what a person types to one memory cgroup."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from pagewalk.model.errors import BadTarget, GroupGone, in_a_line
from pagewalk.proc.cgroups import (
    Hierarchy,
    boot_options,
    contents,
    list_groups,
    open_group,
    processes_of,
    why_none,
)
from pagewalk.proc.files import decode_name, read_bytes, words
from pagewalk.proc.mounts import answered_elsewhere, parse_mounts, real_path, unescaped

CUT = 4095  # bytes of a path that proc_cgroup_show has room for: PATH_MAX less its end
LISTED = 20  # candidates that an error lists
# docker-ID.scope, libpod-ID, cri-containerd-ID.scope, ID; but not libpod-conmon-ID.scope, the group
# of the program that watches the container.
CONTAINER = re.compile(r"(?:cri-containerd-|[a-z]+-)?([0-9a-f]{64})(?:\.scope)?")
ID = re.compile(r"[0-9a-f]{12,64}")


def find_group(word: str, hierarchy: Hierarchy) -> str:
    """Return the path of the one group that ``word`` names, as /proc/PID/cgroup shows it.

    That is a path, below the mount point or as /proc/PID/cgroup shows it; else the last part or
    the last parts of one; else the id of a container, or 12 digits of it or more. Raises BadTarget
    with the candidates, SourceUnavailable.
    """
    if word.startswith("/"):
        return group_at(word, hierarchy)
    groups, ending = list_groups(hierarchy), plain(word)
    named = [] if ending == "/" else groups.path
    rows = [row for row, path in enumerate(named) if path.endswith(ending)]
    if not rows and ID.fullmatch(word):
        rows = [row for row, path in enumerate(groups.path) if container_of(path).startswith(word)]
    if len(rows) == 1:
        return groups.path[rows[0]]
    if not rows:
        raise none_called(word)
    raise several_called(word, [(groups.path[row], int(groups.inode[row])) for row in rows])


def plain(path: str) -> str:
    """Return ``path`` as /proc/PID/cgroup would show it: from "/" on, without empty parts and ".".

    ".." takes back the part before it. At the beginning it stays: that is a group outside of our
    cgroup namespace.
    """
    kept: list[str] = []
    for name in path.split("/"):
        if name == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif name not in ("", "."):
            kept.append(name)
    return f"/{'/'.join(kept)}"


def container_of(path: str) -> str:
    """Return the id of the container whose group this is, "" if it is none."""
    found = CONTAINER.fullmatch(path.rpartition("/")[2])
    return found[1] if found else ""


def group_at(word: str, hierarchy: Hierarchy) -> str:
    # A directory below the mount point comes first: it is what completion in a shell gives.
    root, (real, apart) = hierarchy.root.rstrip("/"), real_path(word, answered_elsewhere())
    if real == hierarchy.mount:
        return hierarchy.root
    below = real.startswith(f"{hierarchy.mount}/")
    path = root + real.removeprefix(hierarchy.mount) if below else plain(word)
    with suppress(GroupGone), open_group(hierarchy, path):
        return path
    other = None if below or apart else hierarchy_at(real)
    if other:
        raise BadTarget(
            f"'{word}' is a group of the hierarchy mounted at {other}; give a group of the memory"
            f" controller's, below {hierarchy.mount}"
        )
    raise none_called(word)


def check_whole(path: str, pid: int) -> None:
    """Raise BadTarget if ``path``, that of process ``pid``, is longer than /proc/PID/cgroup has."""
    if len(os.fsencode(path)) >= CUT:
        raise BadTarget(f"the cgroup of process {pid} has a path of more than {CUT} bytes, which"
                        f" /proc/{pid}/cgroup cuts off there; give the last part of it")


def check_controller(path: str, hierarchy: Hierarchy) -> None:
    """Raise BadTarget, naming who is charged instead, if group ``path`` has no memory controller.

    In version 2 a group has the controllers that its parent's cgroup.subtree_control lists; a
    threaded group never has that of memory. Raises GroupGone too.
    """
    charged = path
    while hierarchy.version == 2 and charged not in (hierarchy.root, "/"):
        with open_group(hierarchy, charged) as group:
            controllers = read_bytes("cgroup.controllers", group)
            kind = read_bytes("cgroup.type", group)
        if b"memory" in words(controllers.replace(b"\n", b" ")):
            break
        if charged == path:
            remedy = "" if kind == b"threaded\n" else (
                ", or write +memory to cgroup.subtree_control of the group above")
        charged = charged.rpartition("/")[0] or "/"
    if charged != path:
        raise BadTarget(f"cgroup {path} has no memory controller: what it uses is charged to"
                        f" {charged}; explain that{remedy}")


def check_enabled(proc: str = "/proc") -> None:
    """Raise SourceUnavailable if this kernel was booted without memory cgroups.

    Its memory has one of them all the same, the root, which is charged for nothing.
    """
    options, controllers = (contents(f"{proc}/{name}") for name in ("cmdline", "cgroups"))
    found = boot_options(options)
    disabled = re.search(rb"(?m)^memory\t\d+\t\d+\t0$", controllers)
    if disabled or b"memory" in found.get(b"cgroup_disable", ()):
        raise why_none([], found, proc)


def hierarchy_at(real: str) -> str | None:
    # The mount point of the hierarchy that has the directory ``real``.
    points = [
        decode_name(unescaped(mount.point))
        for mount in parse_mounts(read_bytes("/proc/self/mountinfo"))
        if mount.kind in (b"cgroup", b"cgroup2")
    ]
    return max((p for p in points if f"{real}/".startswith(f"{p}/")), key=len, default=None)


def several_called(word: str, found: list[tuple[str, int]]) -> BadTarget:
    """Return the error that lists those called ``word``, (path, inode) each."""
    listed = "".join(f"\n  {path}" for path, _ in sorted(found)[:LISTED])
    more = f"\n  ... and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return BadTarget(
        f"{len(found)} cgroups are called '{in_a_line(word)}'; give one path:{listed}{more}",
        tuple((inode, path) for path, inode in sorted(found)),
    )


def none_called(word: str) -> BadTarget:
    return BadTarget(
        f"no memory cgroup is called '{in_a_line(word)}'; give its path as /proc/PID/cgroup shows"
        " it, the last part of that, or the id of a container; of one that was removed pagewalk"
        " cgroups --dying tells"
    )


def pids_below(hierarchy: Hierarchy, path: str) -> list[int]:
    """Return the processes in group ``path`` and below, as /proc lists them, ourselves last.

    0 stands for those that our PID namespace does not show.
    """
    inside = path.rstrip("/") + "/"
    paths = [one for one in list_groups(hierarchy).path if one == path or one.startswith(inside)]
    found: set[int] = set()
    for one in paths:
        with suppress(GroupGone):
            found.update(processes_of(hierarchy, one))
    return sorted(found, key=lambda pid: (pid == os.getpid(), pid))
