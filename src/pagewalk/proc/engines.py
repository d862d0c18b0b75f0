"""What each engine writes about its containers: the files of one folder in, Records out.

What is in these files was chosen by whoever started the container: a value of the wrong type, or of
no use as a name, counts as not told. Every parser raises ValueError for what is not such a file at
all, with the end of a sentence that begins with the file's name.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pagewalk.proc.cgroup_search import plain

MOST = 10_000  # containers of one place
PID = 11  # digits of a number that may be a pid, and one more
LONGEST = 1024  # characters of a name
METADATA = 1 << 16  # characters of Podman's or CRI-O's own data about a container
HALF = re.compile("[\ud800-\udfff]")  # of a pair: JSON may have it, and no output can
# Who gave a container its Kubernetes names: containerd's annotations, then those that CRI-O and
# Docker's shim write (pkg/cri/annotations of containerd, pkg/types of kubelet).
KUBERNETES = {
    "pod": ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
    "pod_id": ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
    "namespace": ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
    "container": ("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
}
TYPES = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
# In cgroup_paths of a runc state; "" is cgroup v2, which may be mounted beside v1.
MOUNTS = {
    "memory": ("/sys/fs/cgroup/memory/",),
    "": ("/sys/fs/cgroup/unified/", "/sys/fs/cgroup/"),
}


class Record(NamedTuple):
    """What one file tells of one container, or of a pod (then ``id`` is empty).

    Empty or 0 is what it does not tell. ``cgroup`` is a path below the hierarchy's root, ``pid`` in
    this /proc's namespace. ``owner`` is the user whose file it is, None for root's and our own.
    """

    engine: str
    id: str
    name: str = ""
    pod: str = ""
    pod_id: str = ""
    namespace: str = ""
    container: str = ""
    cgroup: str = ""
    pid: int = 0
    where: str = ""
    owner: int | None = None


def is_unique(word: str) -> bool:
    """Return whether ``word`` is an id as Docker, Podman, CRI-O and Kubernetes choose them."""
    return len(word) == 64 and not word.strip("0123456789abcdef")


Files = Mapping[str, bytes]
Parse = Callable[[Files, tuple[str, ...]], list[Record]]


def parse_runc(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the container of a runc state.json (libcontainer/container_linux.go, State)."""
    state = document(files["state.json"])
    labels = inner(state, "config").get("labels")
    pairs = [text(word).partition("=") for word in labels] if isinstance(labels, list) else []
    told = {key: value for key, _, value in pairs}
    paths = inner(state, "cgroup_paths")
    inside = (below(text(paths.get(key)), mounts) for key, mounts in MOUNTS.items())
    return [record("runc", stars[-1], told, pid=number(state.get("init_process_pid")),
                   cgroup=next(filter(None, inside), ""))]


def parse_crun(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the container of a crun status (src/libcrun/status.c) and its copy of config.json."""
    status, config = document(files["status"]), document(files.get("config.json", b"{}"))
    cgroup = text(status.get("cgroup-path"))
    return [record("crun", stars[-1], inner(config, "annotations"), pid=number(status.get("pid")),
                   cgroup=cgroup if cgroup[:1] == "/" else "")]


def parse_docker(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the container of a config.v2.json (moby's container/container.go, Container)."""
    config = document(files["config.v2.json"])
    state = inner(config, "State")
    pid = number(state.get("Pid")) if state.get("Running") is True else 0
    return [record("docker", stars[-1], inner(inner(config, "Config"), "Labels"), pid=pid,
                   name=text(config.get("Name")).removeprefix("/"))]


def parse_task(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the container of a containerd task: an OCI config.json, and init.pid beside it."""
    config = document(files["config.json"])
    annotations = inner(config, "annotations")
    namespace, name = stars[-2:]
    pid = files.get("init.pid", b"")[:PID]
    cgroup = text(inner(config, "linux").get("cgroupsPath"))
    # Docker's containers are in a namespace of their own.
    found = record(
        "docker" if namespace == "moby" else "containerd", name, annotations,
        name=text(annotations.get("nerdctl/name")), pid=number(int(pid) if pid.isdigit() else 0),
        cgroup=cgroup if cgroup[:1] == "/" else "",
    )
    return [found if found.namespace or found.engine == "docker"
            else found._replace(namespace=namespace)]


def parse_storage(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the containers of a containers.json of Podman or CRI-O (containers/storage)."""
    entries = loaded(next(iter(files.values())))
    if not isinstance(entries, list):
        raise ValueError("is not a list")
    return [row for entry in entries[:MOST] if isinstance(entry, dict) for row in stored(entry)]


def stored(entry: dict[str, Any]) -> list[Record]:
    names = entry.get("names")
    name = text(names[0]) if isinstance(names, list) and names else ""
    metadata: dict[str, Any] = {}
    with suppress(ValueError):
        metadata = document(text(entry.get("metadata"), METADATA).encode())
    pod = text(metadata.get("pod-name"))
    if not pod:  # only CRI-O knows pods here (its internal/storage/runtime.go)
        return [record("podman", text(entry.get("id")), {}, name=name)]
    own = text(metadata.get("metadata-name"))
    sandbox = metadata.get("pod") is True
    return [record("cri-o", text(entry.get("id")), {}, name=name)._replace(
        pod=pod, pod_id=text(metadata.get("uid")), namespace=text(metadata.get("namespace")),
        container="POD" if sandbox else own)]


def parse_bundle(files: Files, stars: tuple[str, ...]) -> list[Record]:
    """Return the container of an OCI config.json that Podman or CRI-O keeps."""
    config = document(files["config.json"])
    annotations = inner(config, "annotations")
    podman = annotations.get("io.container.manager") == "libpod"
    cgroup = text(inner(config, "linux").get("cgroupsPath"))
    # Podman's SandboxID is no pod's: it is that of the container that keeps the pod together.
    return [record("podman" if podman else "cri-o", stars[-1], annotations,
                   cgroup=cgroup if cgroup[:1] == "/" else "")]


def parse_docker_folder(data: bytes) -> str:
    """Return where daemon.json tells Docker to keep its files, empty if it does not."""
    return text(document(data).get("data-root"))


def parse_storage_folder(data: bytes) -> str:
    """Return where storage.conf tells Podman and CRI-O to keep theirs, empty if it does not."""
    import tomllib  # only where there is such a file

    try:
        config = tomllib.loads(data.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        raise ValueError("is not TOML") from None
    return text(inner(config, "storage").get("graphroot"))


def record(
    engine: str, key: str, told: Mapping[str, Any], *, name: str = "", cgroup: str = "",
    pid: int = 0,
) -> Record:
    """Return a Record, with the Kubernetes names that ``told``, annotations or labels, has."""
    names = {field: next(filter(None, (text(told.get(key)) for key in keys)), "")
             for field, keys in KUBERNETES.items()}
    sandbox = "sandbox" in (told.get(key) for key in TYPES)
    if names["pod"] and sandbox:
        names["container"] = "POD"  # as the kubelet's own statistics call it
    # A name of one's own choice is the id of whoever has no other.
    chosen = name or ("" if is_unique(key) else key)
    return Record(
        engine, key, chosen, names["pod"], names["pod_id"], names["namespace"], names["container"],
        plain(cgroup).rstrip("/"), pid,
    )


def loaded(data: bytes) -> Any:
    import json  # 4 ms, and only where there are containers

    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def document(data: bytes) -> dict[str, Any]:
    found = loaded(data)
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    return found


def inner(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, dict) else {}


def text(value: object, longest: int = LONGEST) -> str:
    """Return ``value`` if it is text of bounded length, else nothing: half a name is another."""
    if not isinstance(value, str) or len(value) > longest:
        return ""
    return HALF.sub("\ufffd", value)


def number(value: object) -> int:
    """Return ``value`` if it can be a pid, else 0."""
    return value if type(value) is int and 0 < value < 1 << 31 else 0


def below(path: str, mounts: tuple[str, ...]) -> str:
    inside = (path[len(mount) - 1 :] for mount in mounts if path.startswith(mount))
    return next(inside, "")
