"""Memory cgroups: where they are mounted, which there are, and which processes are in them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import Withheld
from pagewalk.model.errors import GroupGone, NotPermitted, SourceUnavailable
from pagewalk.model.groups import Groups
from pagewalk.proc.files import decode_name, numbers, read_bytes, rows, words
from pagewalk.proc.mounts import Mount, parse_mounts, unescaped
from pagewalk.proc.refusals import reading

PIECE = 1000  # characters of a path looked up at once, of 4 bytes at most: PATH_MAX is 4096
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What says that there is no such group; kernfs says ENODEV for a file that is open.
GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.ENAMETOOLONG)
# "4:memory:/a/b", "0::/a/b (deleted)" (proc_cgroup_show, kernel/cgroup/cgroup.c); no group has a
# newline in its name (cgroup_mkdir)
MEMBERSHIP = re.compile(rb"(?m)^(\d{1,10}):([^:\n]*):([^\n]+)\n")
PID = re.compile(rb"(?m)^(\d{1,10})()\n")
DELETED = " (deleted)"
# What words of cgroup.memory, an option of the kernel's command line, turn off.
KERNEL, SOCKETS = "the kernel's pages and objects", "buffers of sockets"
SWITCHES = {"nokmem": KERNEL, "nosocket": SOCKETS}


class Hierarchy(NamedTuple):
    """Where the memory controller is: cgroup ``version`` 1 or 2, mounted at ``mount``.

    ``root`` is the path of the group that is mounted there, as /proc/PID/cgroup names it: "/",
    unless a container was given a part of the tree, or we are in a cgroup namespace without a
    mount of its own ("/.."). ``dev`` is major << 32 | minor.
    """

    version: int
    mount: str
    root: str
    dev: int


def find_hierarchy(proc: str = "/proc") -> Hierarchy:
    """Find the hierarchy with the memory controller; raises SourceUnavailable, BadText."""
    try:
        mounts = parse_mounts(read_bytes(f"{proc}/self/mountinfo"))
    except OSError as error:
        why = f"cannot read {proc}/self/mountinfo: {error.strerror}"
        raise SourceUnavailable("cgroups", why, "mount /proc") from error
    options = boot_options(contents(f"{proc}/cmdline"))
    # Of several at one point the last is seen; of those one that shows most, the later if two do.
    seen = list({mount.point: mount for mount in mounts}.values())
    found = sorted(filter(has_memory, seen[::-1]), key=lambda mount: depth(mount.root))
    if not found:
        raise why_none(mounts, options, proc)
    shown = found[0]
    return Hierarchy(
        version=1 if shown.kind == b"cgroup" else 2,
        mount=decode_name(unescaped(shown.point)),
        root=decode_name(unescaped(shown.root)),
        dev=shown.dev,
    )


def has_memory(mount: Mount) -> bool:
    # A controller is in one hierarchy at a time; in version 2 a group tells what it was given. Of
    # other mounts nothing is read: one that does not answer would keep us waiting.
    if mount.kind != b"cgroup2":
        return mount.kind == b"cgroup" and b"memory" in mount.options
    given = contents(f"{decode_name(unescaped(mount.point))}/cgroup.controllers")
    return b"memory" in words(given.replace(b"\n", b" "))


def depth(root: bytes) -> tuple[bool, int]:
    # A root above that of our cgroup namespace is the worst: its groups have no names for us.
    return b".." in root.split(b"/"), root.rstrip(b"/").count(b"/")


def not_charged(version: int, proc: str = "/proc") -> tuple[Withheld, ...]:
    """Return what this kernel charges to no memory cgroup of ``version``, and why.

    Its command line can turn that off (cgroup_memory, mm/memcontrol.c). "nosocket" is about version
    2 alone: there all groups have their sockets counted, in version 1 those with a limit of them.
    """
    off = boot_options(contents(f"{proc}/cmdline")).get(b"cgroup.memory", set())
    return tuple(
        Withheld(what, f"this kernel was booted with cgroup.memory={word}, and charges them to no"
                       " cgroup: boot without it")
        for word, what in SWITCHES.items()
        if word.encode() in off and (version == 2 or what != SOCKETS)
    )  # fmt: skip


def boot_options(cmdline: bytes) -> dict[bytes, set[bytes]]:
    # cgroup_disable=memory,pids cgroup.memory=nokmem
    options: dict[bytes, set[bytes]] = {}
    for word in words(cmdline.replace(b"\n", b" ")):
        name, _, values = word.partition(b"=")
        options.setdefault(name, set()).update(values.strip(b'"').split(b","))
    return options


def why_none(
    mounts: list[Mount], options: dict[bytes, set[bytes]], proc: str
) -> SourceUnavailable:
    # "memory	4	60	1": its hierarchy (0 for version 2), how many groups, whether it is enabled;
    # no line on a kernel that has it in version 2 only (without CONFIG_MEMCG_V1).
    controllers = contents(f"{proc}/cgroups")
    row = re.search(rb"(?m)^memory\t(\d+)\t\d+\t([01])$", controllers)
    built = bool(row) or not controllers or os.path.exists(f"{proc}/kpagecgroup")
    second = [mount for mount in mounts if mount.kind == b"cgroup2"]
    if b"memory" in options.get(b"cgroup_disable", ()):
        why, remedy = "this kernel was booted with cgroup_disable=memory", "boot without it"
    elif not built:
        why = "this kernel has no memory controller: /proc/cgroups does not list it"
        remedy = "use a kernel built with CONFIG_MEMCG"
    elif row and row[2] == b"0":
        why, remedy = "the memory controller is disabled", "boot with cgroup_enable=memory"
    elif row and row[1] != b"0":
        why = "the memory controller is in a hierarchy of version 1 that is not mounted here"
        remedy = "mount -t cgroup -o memory none DIRECTORY"
    elif second:
        point = decode_name(unescaped(second[-1].point))
        why = f"the group mounted at {point} was not given the memory controller"
        remedy = "write +memory to cgroup.subtree_control of its parent"
    else:
        why, remedy = "no cgroups are mounted here", "mount -t cgroup2 none /sys/fs/cgroup"
    return SourceUnavailable("cgroups", why, remedy)


def contents(path: str) -> bytes:
    try:
        return read_bytes(path)
    except OSError:
        return b""


@contextmanager
def open_group(hierarchy: Hierarchy, path: str) -> Iterator[int]:
    """Yield a descriptor of the directory of group ``path``, so that all that is read is its own.

    ``path`` is as /proc/PID/cgroup shows it. Raises GroupGone if there is no such group, or if it
    is removed while it is read; NotPermitted; SourceUnavailable if it is not below what is mounted.
    """
    try:
        with mounted(hierarchy) as top, opened(top, below_root(hierarchy, path)) as group:
            if device(group) != hierarchy.dev:  # something else is mounted on it
                raise GroupGone(path)
            yield group
    except OSError as error:
        if error.errno in GONE:
            raise GroupGone(path) from None
        if isinstance(error, PermissionError):
            what = f"cannot read cgroup {path}"
            raise NotPermitted(what, "permission denied", "run as root") from error
        raise


@contextmanager
def mounted(hierarchy: Hierarchy) -> Iterator[int]:
    top = os.open(hierarchy.mount, DIRECTORY)
    try:
        if device(top) != hierarchy.dev:
            why = f"another mount hides {hierarchy.mount}"
            raise SourceUnavailable("cgroups", why, "unmount it")
        yield top
    finally:
        os.close(top)


@contextmanager
def opened(top: int, relative: str) -> Iterator[int]:
    # A descriptor of the directory ``relative`` to ``top``, however long the path is.
    at = os.dup(top)
    try:
        for piece in pieces(relative):
            below = os.open(piece, DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def pieces(relative: str) -> list[str]:
    if len(relative) < PIECE:
        return [relative] if relative else []
    found, names = [""], relative.split("/")
    for name in names:
        if len(found[-1]) + len(name) >= PIECE:
            found.append(name)
        else:
            found[-1] += f"/{name}" if found[-1] else name
    return found


def device(fd: int) -> int:
    dev = os.fstat(fd).st_dev
    return os.major(dev) << 32 | os.minor(dev)


def below_root(hierarchy: Hierarchy, path: str) -> str:
    """Return ``path`` relative to what is mounted, "" for that itself; raises SourceUnavailable."""
    root = hierarchy.root.rstrip("/")
    relative = path.removeprefix(root).strip("/")
    inside = path == hierarchy.root or path.startswith(f"{root}/")
    if not inside or ".." in relative.split("/"):
        why = f"{path} is not below {hierarchy.root}, which is mounted at {hierarchy.mount}"
        remedy = "run in the cgroup namespace and mount namespace of the machine"
        raise SourceUnavailable("cgroups", why, remedy)
    return relative


def list_groups(hierarchy: Hierarchy) -> Groups:
    """Return every group that is mounted; raises SourceUnavailable, GroupGone for the root.

    A group that is removed meanwhile may be among them. Groups that were removed but are still
    charged for something have no directory any more: they are not.
    """
    inodes, parents, below = [0], [-1], [""]
    with open_group(hierarchy, hierarchy.root) as top:
        inodes[0] = os.fstat(top).st_ino
        for row, relative in enumerate(below):  # it grows
            for name, inode in groups_in(top, relative, hierarchy.dev):
                inodes.append(inode)
                parents.append(row)
                below.append(f"{relative}/{name}" if relative else name)
    root = hierarchy.root.rstrip("/")
    paths = (hierarchy.root, *(f"{root}/{relative}" for relative in below[1:]))
    return Groups(np.array(inodes, np.uint64), np.array(parents, np.int64), paths)


def groups_in(top: int, relative: str, dev: int) -> list[tuple[str, int]]:
    # The names and inodes in a directory of the hierarchy, none if it is gone.
    try:
        with opened(top, relative) as group, os.scandir(group) as entries:
            if device(group) != dev:  # something else is mounted on it
                return []
            return [(entry.name, entry.inode()) for entry in entries
                    if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in GONE:
            return []
        raise


def group_of(pid: int, hierarchy: Hierarchy) -> str | None:
    """Return the group that process ``pid`` is in; None if /proc does not tell.

    The path is as our cgroup namespace shows it: a group outside of that begins with "/..". A
    process that has ended but was not waited for may still be in a group that was removed. Raises
    ProcessGone, NotPermitted, BadText.
    """
    with reading(pid, "cgroup"):
        text = read_bytes(f"/proc/{pid}/cgroup")
    return parse_membership(text, hierarchy.version)


def parse_membership(text: bytes, version: int) -> str | None:
    """Return the memory group in a cgroup file, of ``version``; raises BadText.

    " (deleted)" after a group that was removed is cut off; the kernel writes it in version 2 only.
    """
    for _, controllers, path in rows(MEMBERSHIP, text, "cgroup"):
        if version == 1 and b"memory" in controllers.split(b","):
            return decode_name(path)
        if version == 2 and not controllers:
            return decode_name(path).removesuffix(DELETED)
    return None


def processes_of(hierarchy: Hierarchy, path: str) -> list[int]:
    """Return the processes in group ``path`` itself, ascending, as our PID namespace numbers them.

    A 0 stands for all those that our namespace does not show (version 1 leaves them out). Of a
    threaded group these are the processes of its threads. Raises as open_group does, and BadText.
    """
    with open_group(hierarchy, path) as group:
        return sorted(processes_in(group))


def processes_in(group: int) -> set[int]:
    """Return the processes in the group whose directory is ``group``; see processes_of.

    Raises OSError, one of GONE if it was removed, and BadText.
    """
    try:
        return parse_pids(read_bytes("cgroup.procs", group))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    found = set()
    for thread in parse_pids(read_bytes("cgroup.threads", group)):
        with suppress(OSError):  # it ended meanwhile
            found.update(numbers(read_bytes(f"/proc/{thread}/status"), b"Tgid"))
    return found


def processes_inside(top: int) -> set[int]:
    """Return the processes in the group whose directory is ``top`` and in all below it.

    Groups that are removed meanwhile are left out. Raises BadText, OSError.
    """
    found, below = set(), [""]
    for relative in below:  # it grows
        below += [f"{relative}/{name}" if relative else name
                  for name, _ in groups_in(top, relative, device(top))]
        try:
            with opened(top, relative) as group:
                found |= processes_in(group)
        except OSError as error:
            if error.errno not in GONE:
                raise
    return found


def parse_pids(text: bytes) -> set[int]:
    """Return the numbers in a cgroup.procs or cgroup.threads file; raises BadText."""
    return {int(pid) for pid, _ in rows(PID, text, "cgroup.procs")}
