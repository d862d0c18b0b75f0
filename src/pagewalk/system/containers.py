"""What a cgroup's path says: the unit, container or pod it belongs to, and what people call it.

The path alone tells the engine and the id; the engines' own files tell the name
(proc/containers.py). What neither tells is not guessed: the name is then the last part of the path,
or the first digits of the id, as the engine itself prints it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pagewalk.proc.containers import Records
from pagewalk.proc.engines import Record, is_unique

SHORT = 12  # digits of an id in the output of docker ps and podman ps
PREFIX = re.compile("[0-9a-f][0-9a-f-]{3,63}")  # what find_by_name takes for the beginning of an id


class Name(NamedTuple):
    """What one cgroup is.

    ``kind`` is "unit", "slice", "scope", "session", "user", "container" or "pod", or empty; then
    ``name`` is the last part of the path. ``engine`` is who made it, empty if nothing tells.
    ``id`` is the whole id of the container, the uid of the pod, the number of the session or user.
    ``pod``, ``namespace`` and ``container`` say what it is inside of, or itself: ``pod`` by its
    uid where no file tells its name, ``namespace`` that of Kubernetes or of containerd.
    ``where`` is the file that told the name, empty if the path did.
    """

    kind: str
    name: str
    engine: str = ""
    id: str = ""
    pod: str | None = None
    namespace: str | None = None
    container: str | None = None
    where: str = ""


class Rule(NamedTuple):
    """What one part of a path says if ``pattern`` matches all of it; group 1 is the id."""

    kind: str
    engine: str
    pattern: re.Pattern[str]


HEX = "([0-9a-f]{64})"
# The kubelet writes a uid with - (cgroupfs) or _ (systemd); that of a pod from a file on the node
# is a hash (pkg/kubelet/cm/pod_container_manager_linux.go, pkg/kubelet/config/common.go).
UID = "([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
MONITOR = "monitor"
RULES = tuple(Rule(kind, engine, re.compile(pattern, re.DOTALL)) for kind, engine, pattern in (
    ("container", "docker", rf"docker-{HEX}\.scope"),
    ("container", "containerd", rf"(?:cri-containerd|nerdctl)-{HEX}\.scope"),
    # what containerd makes of a slice if it uses cgroupfs and the kubelet systemd
    ("container", "containerd", rf"[^:]*:cri-containerd:{HEX}"),
    ("container", "cri-o", rf"crio-{HEX}(?:\.scope)?"),
    ("container", "podman", rf"libpod-{HEX}(?:\.scope)?"),
    (MONITOR, "cri-o", rf"crio-conmon-{HEX}(?:\.scope)?"),
    (MONITOR, "podman", rf"libpod-conmon-{HEX}(?:\.scope)?"),
    ("pod", "podman", rf"(?:[a-z]+-)*libpod_pod_{HEX}\.slice"),
    ("pod", "kubernetes", rf"(?:\w+-)*kubepods(?:-burstable|-besteffort)?-pod{UID}\.slice"),
    ("pod", "kubernetes", rf"pod{UID}"),
    ("slice", "kubernetes", r"(?:\w+-)*kubepods(?:-burstable|-besteffort)?\.slice"),
    ("user", "systemd", r"user-([0-9]+)\.slice"),
    ("user", "systemd", r"user@([0-9]+)\.service"),
    ("session", "systemd", r"session-(\w+)\.scope"),
    ("slice", "systemd", r".+\.slice"),
    ("scope", "systemd", r".+\.scope"),
    ("unit", "systemd", r".+\.(?:service|socket|mount|swap)"),
))
# Under a parent of this name 64 hex digits are a container of that engine, or a pod of it.
PARENTS = {"docker": ("container", "docker"), "libpod_parent": ("pod", "podman")}
# Groups of the kubelet's cgroupfs driver, and what their parent is called.
LEVELS = {"kubepods": None, "burstable": "kubepods", "besteffort": "kubepods"}


def name_of(path: str, records: Records) -> Name:
    """Return what the cgroup at ``path`` is, a path as in /proc/PID/cgroup.

    The part that says most is the innermost one that is a container or a unit; what is around it
    tells pod and namespace.
    """
    return names_of((path,), records)[path]


def names_of(paths: Iterable[str], records: Records) -> dict[str, Name]:
    """Return name_of for each of many paths, what they have in common looked at once."""
    known = {"": Name("", "/")}
    return {path: known[reach(path.removesuffix(" (deleted)"), known, records)] for path in paths}


def known_names(names: Mapping[str, Name]) -> dict[str, str]:
    """Return what people call those paths of ``names`` that do not say it: ``container web``."""
    return {path: f"{name.kind} {name.name}" for path, name in names.items()
            if name.engine and name.name not in path}


def reach(path: str, known: dict[str, Name], records: Records) -> str:
    # Adds the names of `path` and of all that is around it to `known`; returns its key there.
    parent = outer = at = ""
    for word in path.split("/")[1:]:
        if word:
            at = f"{outer}/{word}"
            if at not in known:
                known[at] = inside(known[outer], parent, word, at, records)
            parent, outer = word, at
    return at


def inside(outer: Name, parent: str, word: str, path: str, records: Records) -> Name:
    # What `word` is in a cgroup called `parent`, which is `outer`.
    if word == "container" and outer.kind == "container" and outer.engine in ("podman", "cri-o"):
        return outer  # crun keeps what it runs in a group of its own below the scope
    told = agreed(believed(records.by_cgroup.get(path, ()), path))
    kind, engine, key = by_rule(word, parent, outer, records)
    if told and kind != MONITOR:
        kind, key = "container", told[0].id
    if is_unique(key):
        told = believed(records.by_id.get(key, ()), path) or told
    around_it = (outer.pod, outer.namespace, outer.container or within(outer))
    if kind == "pod":
        return pod(engine, key.replace("_", "-"), path, records)
    if kind == "container":
        return container(engine, key, told, outer, told_pod(told, path, records))
    if kind == MONITOR:
        own = container(engine, key, told, outer, told_pod(told, path, records))
        return own._replace(kind="scope", name=f"monitor of {own.name}")
    plain = word.removeprefix("_") if kind else word  # systemd escapes names of controllers so
    return Name(kind, plain, engine, key, *around_it)


def by_rule(word: str, parent: str, outer: Name, records: Records) -> tuple[str, str, str]:
    # Kind, engine and id of `word`, each empty if neither it nor its parent says so.
    for rule in RULES:
        if match := rule.pattern.fullmatch(word):
            return rule.kind, rule.engine, match[1] if match.lastindex else ""
    if is_unique(word):
        if parent in PARENTS:
            return *PARENTS[parent], word
        if outer.kind == "pod" or word in records.by_id:
            return "container", "", word
        return ("pod", "podman", word) if word in records.by_pod else ("", "", "")
    if word in LEVELS and (not LEVELS[word] or parent == LEVELS[word]):
        return "", "kubernetes", ""
    return "", "", ""


def container(engine: str, key: str, told: list[Record], outer: Name, pod: Record) -> Name:
    # `told` are the records of the container, the one that knows best first.
    own, name = first(told, "container"), first(told, "container") or first(told, "name")
    where = (row.where for row in told if name in (row.container, row.name))
    return Name(
        "container", name or (key[:SHORT] if is_unique(key) else key),
        engine or first(told, "engine"), key,
        pod=first(told, "pod") or pod.pod or outer.pod or pod.pod_id or None,
        namespace=first(told, "namespace") or outer.namespace or pod.namespace or None,
        container=own or outer.container or within(outer),
        where=next(where, "") if name else "",
    )


def first(told: list[Record], field: str) -> str:
    return next(filter(None, (getattr(row, field) for row in told)), "")


def pod(engine: str, uid: str, path: str, records: Records) -> Name:
    row = naming((uid, path), path, records)
    if not row:
        return Name("pod", uid, engine, uid, uid)
    return Name("pod", row.pod, engine, uid, row.pod, row.namespace or None, None, row.where)


def told_pod(told: list[Record], path: str, records: Records) -> Record:
    # The pod that the container's own files say it is in: with its name if any file has it.
    uid = first(told, "pod_id")
    return (naming((uid,), path, records) if uid else None) or Record("", "", pod_id=uid)


def naming(keys: Iterable[str], path: str, records: Records) -> Record | None:
    # The row that names a pod; None if there is none, or if they disagree.
    rows = believed((row for key in keys for row in records.by_pod.get(key, ())), path)
    return rows[0] if len({(row.pod, row.namespace) for row in rows}) == 1 else None


def within(outer: Name) -> str | None:
    return outer.name if outer.kind == "container" else None


def believed(rows: Iterable[Record], path: str) -> list[Record]:
    # What a user's own files say counts for what runs in that user's slice, and nowhere else.
    return [row for row in rows if row.owner is None
            or path.startswith(f"/user.slice/user-{row.owner}.slice/")]


def agreed(rows: list[Record]) -> list[Record]:
    # Two containers may have been given one cgroup; then it is not the one's nor the other's.
    return rows if len({row.id for row in rows}) == 1 else []


# ---- the other way


def find_by_name(word: str, records: Records, paths: Iterable[str] = ()) -> list[str]:
    """Return the paths of the cgroups that ``word`` names, sorted: containers, or pods.

    ``word`` is a container's name, NAMESPACE/POD, POD/CONTAINER, NAMESPACE/POD/CONTAINER, a pod's
    name, or the first four or more digits of an id, which count only if nothing has that name and
    no path ends with them.
    More than one path: the name is not unique. ``paths`` are cgroups that exist; without them only
    what is running according to the state files is found.
    """
    known = {*around(row.cgroup for row in records.rows), *around(paths)}
    # A group inside a container is that container too (see inside); the outermost counts.
    found = {path: name for path, name in names_of(sorted(known), records).items()
             if name.kind in ("container", "pod")}
    found = {path: name for path, name in found.items()
             if found.get(path.rpartition("/")[0]) != name}
    called = [path for path, name in found.items() if word in words_for(name)]
    digits = word.lower()
    whole = not is_unique(word) and any(path.endswith(f"/{word}") for path in known)
    if called or whole or not PREFIX.fullmatch(digits):
        return called
    # An id that a person chose (runc's, for one) is a name, and is not abbreviated.
    return [path for path, name in found.items() if name.id.startswith(digits)
            and (name.kind == "pod" or is_unique(name.id))]


def around(paths: Iterable[str]) -> Iterator[str]:
    """Yield each path and the one above it, which may be a pod's."""
    for path in paths:
        if path.strip("/"):
            yield path
            yield path.rpartition("/")[0] or "/"


def words_for(name: Name) -> set[str]:
    # What a person may call it.
    own = [name.pod] if name.kind == "pod" else [name.pod, name.name]
    space = [name.namespace] if name.namespace else []
    whole = [word for word in own if word]
    words = {"/".join(whole), "/".join([*space, *whole])}
    return words if name.kind == "pod" else words | {name.name, "/".join([*space, name.name])}
