"""State files as the engines' own documentation and sources describe them, and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pagewalk.proc.engines import (
    Parse,
    Record,
    parse_bundle,
    parse_crun,
    parse_docker,
    parse_runc,
    parse_storage,
    parse_task,
)

A, B = "ab" * 32, "cd" * 32
UID = "8f7ce1a2-3a8e-4a37-9d5b-0f4d5e6a7b8c"
CRI = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "php",
    "io.kubernetes.cri.sandbox-name": "web-0",
    "io.kubernetes.cri.sandbox-namespace": "shop",
    "io.kubernetes.cri.sandbox-uid": UID,
}
DOCKER_SHIM = {
    "io.kubernetes.container.name": "php", "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
}


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


# ---- each engine's file


RUNC = {
    "id": "web", "init_process_pid": 4711, "init_process_start": 12345,
    "config": {"labels": ["bundle=/srv/web", *(f"{key}={value}" for key, value in CRI.items())]},
    "cgroup_paths": {"cpu": "/sys/fs/cgroup/cpu/a/web", "memory": "/sys/fs/cgroup/memory/b/web"},
}


def test_runc() -> None:
    (row,) = parse_runc({"state.json": written(RUNC)}, ("web",))
    assert row == Record("runc", "web", "web", "web-0", UID, "shop", "php", "/b/web", 4711)


@pytest.mark.parametrize(
    ("paths", "path"),
    [
        ({"": "/sys/fs/cgroup/x.slice/runc-web.scope"}, "/x.slice/runc-web.scope"),
        ({"": "/sys/fs/cgroup/unified/x"}, "/x"),
        ({"memory": "/elsewhere/x"}, ""),
        ({"memory": 7}, ""),
        ([], ""),
    ],
)
def test_a_cgroup_of_runc_is_below_the_hierarchy(paths: object, path: str) -> None:
    (row,) = parse_runc({"state.json": written(RUNC | {"cgroup_paths": paths})}, ("web",))
    assert row.cgroup == path


def test_crun_has_annotations_beside_its_status() -> None:
    status = {"pid": 4711, "cgroup-path": "/b/web", "systemd-cgroup": False, "bundle": "/srv/web"}
    files = {"status": written(status), "config.json": written({"annotations": CRI})}
    (row,) = parse_crun(files, ("web",))
    assert row == Record("crun", "web", "web", "web-0", UID, "shop", "php", "/b/web", 4711)
    (row,) = parse_crun({"status": written(status)}, ("web",))
    assert row == Record("crun", "web", "web", cgroup="/b/web", pid=4711)


DOCKER = {"ID": A, "Name": "/web-1", "State": {"Running": True, "Pid": 4711},
          "Config": {"Labels": {"com.docker.compose.service": "web"}}}


def test_docker() -> None:
    (row,) = parse_docker({"config.v2.json": written(DOCKER)}, (A,))
    assert row == Record("docker", A, "web-1", pid=4711)
    stopped = DOCKER | {"State": {"Running": False, "Pid": 4711}}
    assert parse_docker({"config.v2.json": written(stopped)}, (A,))[0].pid == 0
    shim = DOCKER | {"Config": {"Labels": DOCKER_SHIM}}
    (row,) = parse_docker({"config.v2.json": written(shim)}, (A,))
    assert row[3:7] == ("web-0", UID, "shop", "php")


def test_containerd() -> None:
    config = written({"annotations": CRI, "linux": {"cgroupsPath": f"/kubepods/pod{UID}/{A}"}})
    (row,) = parse_task({"config.json": config, "init.pid": b"4711"}, ("k8s.io", A))
    path = f"/kubepods/pod{UID}/{A}"
    assert row == Record("containerd", A, "", "web-0", UID, "shop", "php", path, 4711)
    (row,) = parse_task({"config.json": config, "init.pid": b"1" * 6000}, ("k8s.io", A))
    assert row.pid == 0 and row.cgroup == path
    config = written({"linux": {"cgroupsPath": f"//kubepods/./pod{UID}//{A}/"}})
    (row,) = parse_task({"config.json": config}, ("k8s.io", A))
    assert row.cgroup == path
    # systemd's form is SLICE:PREFIX:NAME, which is no path.
    config = written({"linux": {"cgroupsPath": "system.slice:cri-containerd:web"}})
    (row,) = parse_task({"config.json": config}, ("default", "web"))
    assert row == Record("containerd", "web", "web", namespace="default")
    (row,) = parse_task({"config.json": b"{}"}, ("moby", A))
    assert row == Record("docker", A)
    config = written({"annotations": {"nerdctl/name": "web-1"}})
    assert parse_task({"config.json": config}, ("default", A))[0].name == "web-1"


def test_the_container_that_keeps_a_pod_is_called_as_the_kubelet_calls_it() -> None:
    told = {**CRI, "io.kubernetes.cri.container-type": "sandbox"}
    del told["io.kubernetes.cri.container-name"]
    (row,) = parse_task({"config.json": written({"annotations": told})}, ("k8s.io", A))
    assert row.container == "POD"


def test_podman_and_cri_o_share_a_file() -> None:
    podman = {"id": A, "names": ["web-1", "web"], "metadata": '{"name":"web-1"}'}
    crio = {"id": B, "names": ["k8s_php_web-0_shop_x_0"], "metadata": json.dumps({
        "pod-name": "web-0", "pod-id": "ef" * 32, "metadata-name": "php", "uid": UID,
        "namespace": "shop"})}
    sandbox = crio | {"metadata": json.dumps({"pod": True, "pod-name": "web-0"})}
    rows = parse_storage({"containers.json": written([podman, crio, sandbox])}, ("overlay",))
    assert rows[0] == Record("podman", A, "web-1")
    assert rows[1] == Record("cri-o", B, "k8s_php_web-0_shop_x_0", "web-0", UID, "shop", "php")
    assert rows[2].container == "POD"


def test_a_bundle_of_podman_tells_the_cgroup_and_no_pod() -> None:
    # That of another container of the pod, if the pod has one that only keeps it together.
    told = {"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": B,
            "io.kubernetes.cri-o.ContainerType": "container"}
    config = {"annotations": told, "linux": {"cgroupsPath": f"/libpod_parent/{B}/libpod-{A}"}}
    (row,) = parse_bundle({"config.json": written(config)}, ("overlay", A))
    path = f"/libpod_parent/{B}/libpod-{A}"
    assert row == Record("podman", A, cgroup=path)
    config = {"annotations": {"io.container.manager": "cri-o", **DOCKER_SHIM}}
    (row,) = parse_bundle({"config.json": written(config)}, ("overlay", A))
    assert row == Record("cri-o", A, "", "web-0", UID, "shop", "php")


# ---- files that are not as they should be


NONSENSE = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"null"]
PARSERS = [
    (parse_runc, "state.json", ("web",)), (parse_crun, "status", ("web",)),
    (parse_docker, "config.v2.json", (A,)), (parse_task, "config.json", ("default", "web")),
    (parse_storage, "containers.json", ("overlay",)),
    (parse_bundle, "config.json", ("overlay", A)),
]


@pytest.mark.parametrize("data", NONSENSE, ids=range(len(NONSENSE)))
@pytest.mark.parametrize(("parse", "file", "stars"), PARSERS, ids=lambda of: str(of)[:30])
def test_what_is_not_a_state_is_refused_in_words(
    parse: Parse, file: str, stars: tuple[str, ...], data: bytes
) -> None:
    with pytest.raises(ValueError, match=r"^is n"):
        parse({file: data}, stars)


WRONG: list[Any] = [None, True, 7, -1, 1.5, 1e999, "x", [], [[]], {}, {"a": {}},
                    "y" * 5000, 1 << 80]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda of: str(of)[:10])
def test_values_of_other_types_count_as_not_told(wrong: Any) -> None:
    for whole in (RUNC, DOCKER):
        for key in whole:
            data = written({**whole, key: wrong})
            for parse, file, stars in PARSERS[:4]:
                (row,) = parse({file: data}, stars)
                assert row.id == stars[-1] and 0 <= row.pid < 1 << 31
                assert all(isinstance(word, str) and len(word) <= 1024 for word in row[:8])
    for key in ("id", "names", "metadata"):
        entry = {"id": A, "names": ["web-1"], "metadata": "{}", key: wrong}
        assert len(parse_storage({"containers.json": written([entry, wrong])}, ())) in (1, 2)
    config = {"annotations": wrong, "linux": {"cgroupsPath": wrong}}
    assert parse_bundle({"config.json": written(config)}, ("overlay", A))[0].cgroup == ""


def test_half_of_a_surrogate_pair_can_be_printed() -> None:
    (row,) = parse_docker({"config.v2.json": b'{"Name": "/a\\ud800b\\n"}'}, (A,))
    row.name.encode()
    assert row.name.startswith("a") and row.name.endswith("b\n")
