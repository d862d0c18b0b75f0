"""Names of real containers: each engine is asked what it started, and the kernel where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.containers import Records, read_records
from pagewalk.proc.engines import is_unique
from pagewalk.proc.namespace import pid_numbers
from pagewalk.system.containers import Name, find_by_name, name_of
from tests.live import engines
from tests.live.command import pagewalk_here
from tests.live.engines import CGROUPS, LIMIT, OLD, OWN, Den, Started

pytestmark = pytest.mark.live

UID = "8f7ce1a2-3a8e-4a37-9d5b-0f4d5e6a7b8c"
MEMORY = CGROUPS / "memory" if OLD else CGROUPS


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Den]:
    with engines.den(tmp_path_factory.mktemp("den")) as den:
        yield den


@pytest.fixture(scope="module")
def daemons(den: Den) -> Iterator[None]:
    with engines.containerd(den), engines.dockerd(den):
        yield


def records(den: Den) -> Records:
    """Return what the state files tell; all of them are readable."""
    found = read_records(str(den.root))
    assert found.missing == ()
    return found


def limit(path: str) -> int:
    """Return the limit in bytes of the memory cgroup at ``path``."""
    file = "memory.limit_in_bytes" if OLD else "memory.max"
    return int((MEMORY / path[1:] / file).read_text())


Starts = Callable[[Den, str], AbstractContextManager[Started]]
ENGINES: dict[str, Starts] = {
    "runc": engines.runc, "crun": engines.crun, "podman": engines.podman,
    "containerd": engines.ctr, "docker": engines.docker,
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_is_called_what_its_engine_was_told(
    engine: str, den: Den, daemons: None
) -> None:
    with ENGINES[engine](den, f"web-{engine}") as started:
        known = records(den)
        name = name_of(started.group, known)
        found = find_by_name(f"web-{engine}", known)
        # An id that a person chose is not abbreviated.
        by_id = find_by_name(started.id[:12] if is_unique(started.id) else started.id, known)
        numbers = pid_numbers(started.pid)
        limits = [limit(path) for path in found]
        group = started.group
        explained = json.loads(den.run(
            sys.executable, "-m", "pagewalk", "explain", f"web-{engine}", "--format", "json"))
    assert explained["cgroup"]["path"] == group
    assert explained["cgroup"]["name"] == f"web-{engine}"
    [process] = explained["processes"]
    assert (process["pid"], process["pids_inside"]) == (started.pid, [1])
    assert name == Name(
        "container", f"web-{engine}", engine, started.id, where=name.where,
        namespace="default" if engine == "containerd" else None,
    )
    assert Path(name.where).is_relative_to(den.root)
    assert found == by_id == [group]
    assert limits == [LIMIT]
    assert numbers == (started.pid, 1)
    assert find_by_name(f"web-{engine}", records(den)) == []  # it has ended


def test_a_recording_has_the_names_that_live_had(den: Den, daemons: None) -> None:
    """It is read outside, where no state file of an engine tells them."""

    def inside(*words: object) -> Any:
        return json.loads(den.run(sys.executable, "-m", "pagewalk", *words, "--format", "json"))

    file, group = den.root / "all.pagewalk", den.root / "group.pagewalk"
    with engines.runc(den, "web-kept") as one, engines.docker(den, "shop-kept") as other:
        paths = {one.group: "web-kept", other.group: "shop-kept"}
        live, explained = named(inside("cgroups"), paths), inside("explain", "web-kept")["cgroup"]
        den.run(sys.executable, "-m", "pagewalk", "record", one.pid, "--ram", "-o", file)
        den.run(sys.executable, "-m", "pagewalk", "record", "--cgroup", "web-kept", "-o", group)
        outside = named(pagewalk_here("cgroups", "--format", "json").json, paths)
    found = named(pagewalk_here("cgroups", file, "--format", "json").json, paths)
    assert found == live and {row["name"] for row in found.values()} == {*paths.values()}
    assert [*outside.values()] != [*live.values()]  # or nothing was shown
    screen = pagewalk_here("cgroups", file, "--limit", 100_000).out
    assert "web-kept" in screen and "shop-kept" in screen
    said = pagewalk_here("explain", group, "--format", "json").json["cgroup"]
    assert said == explained and (said["name"], said["engine"]) == ("web-kept", "runc")


NAMED = ("path", "name", "kind")


def named(found: Any, paths: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what cgroups says that those at ``paths`` are."""
    return {row["path"]: {key: row[key] for key in NAMED} for row in found["cgroups"]
            if row["path"] in paths}


def test_two_containers_of_one_name_are_both_found(den: Den, daemons: None) -> None:
    with engines.docker(den, "twin") as first, engines.podman(den, "twin") as second:
        known = records(den)
        groups = {first.group, second.group}
        assert {name_of(group, known).engine for group in groups} == {"docker", "podman"}
        assert set(find_by_name("twin", known)) == groups
        words = den.words((sys.executable, "-m", "pagewalk", "explain", "twin"))
        ran = subprocess.run(words, env=den.environment, cwd=den.root, stderr=subprocess.PIPE,
                             text=True, check=False)
        assert ran.returncode == 2
        assert all(f"\n  {group}\n" in f"{ran.stderr}\n" for group in groups)
        assert find_by_name(second.id[:4], known) == [second.group]


def test_docker_under_a_parent_of_ones_own_and_when_it_has_gone(den: Den, daemons: None) -> None:
    with engines.docker(den, "deep", parent=f"/{OWN}/apps") as started:
        group, known = started.group, records(den)
        assert group == f"/{OWN}/apps/{started.id}"
        assert name_of(group, known).name == "deep"
        assert find_by_name("deep", known) == [group]
    # Nothing tells that such a group was Docker's, unless it is where Docker itself puts them.
    assert name_of(group, records(den)) == Name("", started.id)
    gone = name_of(f"/docker/{started.id}", records(den))
    assert gone == Name("container", started.id[:12], "docker", started.id)


def test_a_pod_of_podman(den: Den) -> None:
    with engines.podman_pod(den, "shop") as pod, \
            engines.podman(den, "till", "--pod", "shop") as started:
        group, known = started.group, records(den)
        name = name_of(group, known)
        found = {word: find_by_name(word, known) for word in ("till", "shop/till", "shop")}
    assert name[:5] == ("container", "till", "podman", started.id, "shop")
    assert found["till"] == found["shop/till"] == [group]
    around = group.rpartition("/")[0]
    assert around.endswith(f"/{pod}") is OLD
    assert found["shop"] == ([around] if OLD else [])
    if OLD:  # see podman_pod
        outer = name_of(around, known)
        assert outer == Name("pod", "shop", "podman", pod, "shop", where=outer.where)
        assert find_by_name(pod[:8], known) == [around]


DIGITS = "0123456789abcdef" * 4
SYSTEMD = f"kubepods.slice/kubepods-{{0}}.slice/kubepods-{{0}}-pod{UID.replace('-', '_')}.slice"
# As the kubelet and its engines write them, for each class of pods and both drivers.
PATHS = {
    "burstable": (f"kubepods/burstable/pod{UID}/{DIGITS}", "runc"),
    "besteffort": (f"kubepods/besteffort/pod{UID}/{DIGITS}", "runc"),
    "guaranteed": (f"kubepods/pod{UID}/{DIGITS}", "runc"),
    "guaranteed, systemd":
        (f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/docker-{DIGITS}.scope",
         "docker"),
    "containerd, systemd":
        (f"{SYSTEMD.format('burstable')}/cri-containerd-{DIGITS}.scope", "containerd"),
    "cri-o, systemd": (f"{SYSTEMD.format('besteffort')}/crio-{DIGITS}.scope", "cri-o"),
    "cri-o": (f"kubepods/burstable/pod{UID}/crio-{DIGITS}", "cri-o"),
}
CRI = "io.kubernetes.cri."
ANNOTATIONS = {
    f"{CRI}container-type": "container", f"{CRI}container-name": "php",
    f"{CRI}sandbox-name": "web-0", f"{CRI}sandbox-namespace": "shop", f"{CRI}sandbox-uid": UID,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_pod_of_kubernetes(path: str, den: Den) -> None:
    below, engine = PATHS[path]
    below = f"/{OWN}/{below}"
    with engines.runc(den, DIGITS, cgroup=below, annotations=ANNOTATIONS) as started:
        assert started.group == below
        known = records(den)
        name, pod = name_of(below, known), name_of(below.rpartition("/")[0], known)
        words = ("web-0", "shop/web-0", "shop/web-0/php", "web-0/php", "php", UID, DIGITS[:4])
        found = {word: find_by_name(word, known) for word in words}
    where = str(den.root / f"run/runc/{DIGITS}/state.json")
    assert name == Name("container", "php", engine, DIGITS, "web-0", "shop", "php", where)
    assert pod == Name("pod", "web-0", "kubernetes", UID, "web-0", "shop", None, where)
    around = [below.rpartition("/")[0]]
    pods = ("web-0", "shop/web-0", UID)
    assert found == {word: around if word in pods else [below] for word in words}
    # Once its files are gone, the path still says which pod it was.
    gone = name_of(below, records(den))
    assert gone[:5] == ("container", DIGITS[:12], gone.engine, DIGITS, UID)


def test_a_pod_that_containerd_runs(den: Den, daemons: None) -> None:
    group = f"/{OWN}/kubepods/burstable/pod{UID}"
    noted = [f"--annotation={key}={value}" for key, value in ANNOTATIONS.items()]
    box = [f"--annotation={CRI}container-type=sandbox", *noted[2:]]
    started = engines.ctr(den, DIGITS, f"--cgroup={group}/{DIGITS}", *noted, namespace="k8s.io")
    other = DIGITS[::-1]
    sandbox = engines.ctr(den, other, f"--cgroup={group}/{other}", *box, namespace="k8s.io")
    with started as php, sandbox as pause:
        known = records(den)
        names = [name_of(started.group, known) for started in (php, pause)]
        found = find_by_name("shop/web-0", known)
    assert [name[:7] for name in names] == [
        ("container", word, "containerd", key, "web-0", "shop", word)
        for word, key in (("php", DIGITS), ("POD", other))
    ]
    assert found == [group]


def test_an_ordinary_user_is_told_what_was_not_read(den: Den, daemons: None) -> None:
    os.chmod(den.root, 0o755)
    with engines.docker(den, "private"), engines.runc(den, "secret"):
        known = as_nobody(den.root)
        assert "private" in {row.name for row in records(den).rows}
    assert known["names"] == []
    refused = [line for line in known["missing"] if "permission denied; run as root" in line]
    assert any("docker/containers" in line for line in refused), known
    assert any("run/runc" in line for line in refused), known


def as_nobody(folder: Path) -> Any:
    # From inside the folder, and forked: those above it, and the checkout's, may be closed.
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            found = read_records(".")
            names = [row.name for row in found.rows]
            os.write(tell, json.dumps({"names": names, "missing": found.missing}).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with open(told, "rb") as said:
        text = said.read()
    os.waitpid(child, 0)
    return json.loads(text)
