"""Real container engines in a folder of their own, which they take for the machine's.

A mount namespace has the folder's run, etc and var/lib in place of the real ones, so that engines
that the machine itself may have are not touched, and nothing of ours is left. Only the cgroups are
the machine's: those that we have made are removed.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machine import MachineLacks, alone

CGROUPS = Path("/sys/fs/cgroup")
OLD = (CGROUPS / "memory").is_dir()  # cgroup v1
LIMIT = 64 << 20
PATIENCE = 120.0  # seconds: for a daemon that hangs, not for a slow machine
SLEEP = ("/bin/sleep", "3600")
OWN = f"pagewalk-{os.getpid()}"
# What engines make at the root of each hierarchy, unless they are told otherwise.
TOPS = ("docker", "libpod_parent", "default", "k8s.io", OWN)
REPLACED = ("run", "var/lib", "var/cache", "etc", "opt")
NEEDED = ("passwd", "group", "hosts", "resolv.conf", "nsswitch.conf", "alternatives", "containers")
MOUNTS = """
for folder in {folders}; do mount --bind {root}/$folder /$folder; done
mount -t tmpfs shm /dev/shm
{also}
echo ready
exec cat
"""
PODMAN = """
[containers]
apparmor_profile = "unconfined"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "crun"
events_logger = "file"
"""
CONTAINERD = """
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""


@dataclass(frozen=True)
class Started:
    """A running container, as its engine describes it."""

    id: str
    pid: int

    @property
    def group(self) -> str:
        """Return the path of its memory cgroup, as the kernel says."""
        lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        told = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
        return told["memory" if OLD else ""]


@dataclass(frozen=True)
class Den:
    """The folder, and the process whose mount namespace has it in place."""

    root: Path
    holder: int

    def words(self, words: tuple[object, ...]) -> list[str]:
        """Return the command that runs ``words`` in the namespace."""
        if not shutil.which(str(words[0])):
            raise MachineLacks(f"{words[0]}: install the packages in scripts/test-packages.txt")
        return ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", "--", *map(str, words)]

    def run(self, *words: object) -> str:
        """Run a command to its end and return what it wrote."""
        # To files: what a container inherits would keep a pipe open.
        out, err = self.root / "out", self.root / "err"
        with open(out, "wb") as written, open(err, "wb") as said:
            done = subprocess.run(self.words(words), check=False, stdin=subprocess.DEVNULL,
                                  stdout=written, stderr=said, timeout=PATIENCE,
                                  env=self.environment, cwd=self.root)
        assert done.returncode == 0, f"{words}: {err.read_text(errors='replace')}"
        return out.read_text(errors="replace")

    @contextmanager
    def daemon(self, *words: object, ready: Callable[[], object]) -> Iterator[None]:
        """Run a daemon for the time of the block, which begins when ``ready`` does not raise."""
        with open(self.root / f"{words[0]}.log", "wb") as log:
            process = subprocess.Popen(self.words(words), stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env=self.environment, cwd=self.root)
        try:
            wait_for(ready, process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that the engines get."""
        return os.environ | {"CONTAINERS_CONF": str(self.root / "podman.conf"), "HOME": "/var/lib"}


def wait_for(ready: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ready()
            return
        except (AssertionError, OSError) as error:
            assert process.poll() is None, f"{process.args!r} ended: {error}"
            assert time.monotonic() < deadline, f"{process.args!r} is never ready: {error}"
            time.sleep(0.05)


@contextmanager
def den(folder: Path) -> Iterator[Den]:
    """Make the folder and the namespace, and remove our cgroups at the end."""
    for name in REPLACED:
        (folder / name).mkdir(parents=True)
    for name in NEEDED:
        if (Path("/etc") / name).exists():
            subprocess.run(["cp", "-a", f"/etc/{name}", folder / "etc"], check=True)
    (folder / "podman.conf").write_text(PODMAN)
    (folder / "containerd.toml").write_text(CONTAINERD)
    make_image(folder)
    # crun refuses v2 beside v1.
    also = "umount /sys/fs/cgroup/unified" if (CGROUPS / "unified").is_dir() else ""
    script = MOUNTS.format(root=folder, folders=" ".join(REPLACED), also=also)
    words = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]
    with alone(), groups_removed():
        holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
            yield Den(folder, holder.pid)
        finally:
            holder.kill()
            holder.wait()


def make_image(folder: Path) -> None:
    # A root file system of one program, in a folder and as an archive.
    root = folder / "image"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    (root / "bin" / "sleep").symlink_to("busybox")
    with tarfile.open(folder / "image.tar", "w") as archive:
        archive.add(root, ".")


def hierarchies() -> list[Path]:
    return [CGROUPS] if not OLD else [path for path in CGROUPS.iterdir() if path.is_dir()]


@contextmanager
def groups_removed() -> Iterator[None]:
    """Remove the cgroups of TOPS that the block has made."""
    mine = [top / name for top in hierarchies() for name in TOPS if not (top / name).exists()]
    try:
        yield
    finally:
        deadline = time.monotonic() + 30  # the kernel may need a moment after the last process
        while left := [path for path in mine if path.exists()]:
            for path in left:
                remove(path)
            assert time.monotonic() < deadline, f"cannot remove {left}"


def remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)


# ---- one function an engine: a container called `name`, until the block ends


@contextmanager
def runc(den: Den, name: str, tool: str = "runc", **oci: Any) -> Iterator[Started]:
    """Run a container by an OCI config.json, with ``cgroup``, ``annotations`` and ``args``."""
    bundle = den.root / "bundles" / name.replace("/", "_")
    bundle.mkdir(parents=True, exist_ok=True)
    den.run(tool, "spec", "--bundle" if tool == "runc" else "-b", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": oci.get("args", SLEEP), "terminal": False}
    config["process"].pop("rlimits", None)
    config["root"]["path"] = str(den.root / "image")
    config["linux"]["cgroupsPath"] = oci.get("cgroup", f"/{OWN}/{tool}/{name}")
    config["linux"]["resources"] = {"memory": {"limit": LIMIT}}
    config["annotations"] = oci.get("annotations", {})
    (bundle / "config.json").write_text(json.dumps(config))
    try:
        den.run(tool, "run", "--detach", "--pid-file", bundle / "pid", "--bundle", bundle, name)
        yield Started(name, int((bundle / "pid").read_text()))
    finally:
        den.run(tool, "delete", "--force", name)
        shutil.rmtree(bundle)


@contextmanager
def crun(den: Den, name: str) -> Iterator[Started]:
    """Run a container by crun."""
    with runc(den, name, "crun") as started:
        yield started


@contextmanager
def podman(den: Den, name: str, *options: str) -> Iterator[Started]:
    """Run a container by Podman."""
    tool = ("podman", "--storage-driver=vfs")
    if "pagewalk" not in den.run(*tool, "images"):
        den.run(*tool, "import", den.root / "image.tar", "pagewalk:1")
    alone = () if "--pod" in options else ("--net=none",)
    try:
        den.run(*tool, "run", "--detach", "--name", name, f"--memory={LIMIT}", *alone,
                *options, "pagewalk:1", *SLEEP)
        told = json.loads(den.run(*tool, "inspect", name))[0]
        yield Started(told["Id"], told["State"]["Pid"])
    finally:
        den.run(*tool, "rm", "--force", "--time=0", name)


@contextmanager
def podman_pod(den: Den, name: str) -> Iterator[str]:
    """Make a pod of Podman's until the block ends; yields its id."""
    try:
        # On cgroup v2 Podman 4.3 makes pods' cgroups in which no device may be used, not /dev/null.
        parent = f"--share-parent={str(OLD).lower()}"
        yield den.run("podman", "--storage-driver=vfs", "pod", "create", "--net=none", parent,
                      "--name", name).strip()
    finally:
        den.run("podman", "--storage-driver=vfs", "pod", "rm", "--force", "--time=0", name)


@contextmanager
def containerd(den: Den) -> Iterator[None]:
    """Run containerd."""
    words = ("containerd", "--config", den.root / "containerd.toml")
    with den.daemon(*words, ready=lambda: den.run("ctr", "version")):
        yield


@contextmanager
def ctr(den: Den, name: str, *options: str, namespace: str = "default") -> Iterator[Started]:
    """Run a container by containerd, without an image."""
    tool = ("ctr", "--namespace", namespace)
    words = (f"--memory-limit={LIMIT}", *options, "--rootfs", den.root / "image", name, *SLEEP)
    try:
        den.run(*tool, "run", "--detach", *words)
        rows = [line.split() for line in den.run(*tool, "task", "list").splitlines()]
        yield Started(name, next(int(row[1]) for row in rows if row[0] == name))
    finally:
        den.run(*tool, "task", "delete", "--force", name)
        den.run(*tool, "container", "delete", name)


@contextmanager
def dockerd(den: Den) -> Iterator[None]:
    """Run Docker's daemon, on a containerd that runs already."""
    options = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
               "--containerd=/run/containerd/containerd.sock", "--host=unix:///run/docker.sock")
    with den.daemon("dockerd", *options, ready=lambda: ask_docker(den, "GET", "/_ping")):
        with open(den.root / "image.tar", "rb") as image:
            ask_docker(den, "POST", "/images/create?fromSrc=-&repo=pagewalk&tag=1", image.read())
        yield


def ask_docker(den: Den, method: str, path: str, body: bytes = b"") -> Any:
    """Return what Docker's daemon answers; its command is a package of its own on Debian 13."""
    connection = http.client.HTTPConnection("docker", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    with connection.sock:
        connection.sock.connect(str(den.root / "run/docker.sock"))
        kind = "application/json" if body[:1] == b"{" else "application/x-tar"
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status < 300, f"{method} {path}: {text!r}"
    return json.loads(text.splitlines()[-1]) if text[:1] == b"{" else None


@contextmanager
def docker(den: Den, name: str, parent: str = "", **labels: str) -> Iterator[Started]:
    """Run a container by Docker."""
    # Without AppArmor: loading a profile would change the machine.
    host = {"Memory": LIMIT, "NetworkMode": "none", "CgroupParent": parent,
            "SecurityOpt": ["apparmor=unconfined"]}
    asked = {"Image": "pagewalk:1", "Cmd": SLEEP, "HostConfig": host, "Labels": labels}
    body = json.dumps(asked).encode()
    made = ask_docker(den, "POST", f"/containers/create?name={name}", body)["Id"]
    try:
        ask_docker(den, "POST", f"/containers/{made}/start")
        yield Started(made, ask_docker(den, "GET", f"/containers/{made}/json")["State"]["Pid"])
    finally:
        ask_docker(den, "DELETE", f"/containers/{made}?force=1")
