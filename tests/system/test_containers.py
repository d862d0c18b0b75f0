"""Paths as systemd, the engines and the kubelet document them, with and without state files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pagewalk.proc.containers import PLACES, Records
from pagewalk.proc.engines import KUBERNETES, Record
from pagewalk.system.containers import RULES, Name, find_by_name, name_of

A, B, C = "ab" * 32, "cd" * 32, "ef" * 32
UID = "8f7ce1a2-3a8e-4a37-9d5b-0f4d5e6a7b8c"
UID_ = UID.replace("-", "_")
STATIC = "0123456789abcdef" * 2  # a pod from a file on the node has a hash for a uid
NONE = Records()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", Name("", "/")),
        ("/system.slice", Name("slice", "system.slice", "systemd")),
        ("/system.slice/app.service", Name("unit", "app.service", "systemd")),
        ("/system.slice/app.service (deleted)", Name("unit", "app.service", "systemd")),
        ("/init.scope", Name("scope", "init.scope", "systemd")),
        ("/system.slice/system-getty.slice/getty@tty1.service",
         Name("unit", "getty@tty1.service", "systemd")),
        ("/system.slice/dev-hugepages.mount", Name("unit", "dev-hugepages.mount", "systemd")),
        ("/user.slice/user-1000.slice", Name("user", "user-1000.slice", "systemd", "1000")),
        ("/user.slice/user-1000.slice/user@1000.service",
         Name("user", "user@1000.service", "systemd", "1000")),
        ("/user.slice/user-1000.slice/session-3.scope",
         Name("session", "session-3.scope", "systemd", "3")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome\\x2dterminal.scope",
         Name("scope", "app-gnome\\x2dterminal.scope", "systemd")),
        # cg_escape() of systemd: what would be the name of a controller's file, and what has _
        ("/system.slice/_cpu.service", Name("unit", "cpu.service", "systemd")),
        ("/system.slice/__own.service", Name("unit", "_own.service", "systemd")),
        ("/_own", Name("", "_own")),
        ("/system.slice/app.service/worker", Name("", "worker")),
        ("/system.slice/a\tb\x1b[31m.service", Name("unit", "a\tb\x1b[31m.service", "systemd")),
    ],
)
def test_units_of_systemd(path: str, name: Name) -> None:
    assert name_of(path, NONE) == name


POD = {"pod": UID}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/docker/{A}", Name("container", A[:12], "docker", A)),
        (f"/system.slice/docker-{A}.scope", Name("container", A[:12], "docker", A)),
        (f"/apps.slice/docker-{A}.scope", Name("container", A[:12], "docker", A)),
        (f"/docker/{A}/system.slice/nginx.service",
         Name("unit", "nginx.service", "systemd", container=A[:12])),
        (f"/docker/{A}/docker/{B}", Name("container", B[:12], "docker", B, container=A[:12])),
        (f"/apps/{A}", Name("", A)),  # Docker's, or anything
        (f"/docker/{A[:40]}", Name("", A[:40])),
        (f"/machine.slice/libpod-{A}.scope", Name("container", A[:12], "podman", A)),
        (f"/machine.slice/libpod-{A}.scope/container", Name("container", A[:12], "podman", A)),
        (f"/machine.slice/libpod-{A}.scope/supervisor", Name("", "supervisor",
                                                            container=A[:12])),
        (f"/machine.slice/libpod-conmon-{A}.scope",
         Name("scope", f"monitor of {A[:12]}", "podman", A)),
        (f"/libpod_parent/libpod-{A}", Name("container", A[:12], "podman", A)),
        (f"/libpod_parent/{B}", Name("pod", B, "podman", B, B)),
        (f"/libpod_parent/{B}/libpod-{A}", Name("container", A[:12], "podman", A, B)),
        (f"/machine.slice/machine-libpod_pod_{B}.slice", Name("pod", B, "podman", B, B)),
        (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container",
         Name("container", A[:12], "podman", A, B)),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
         Name("container", A[:12], "podman", A)),
        (f"/system.slice/nerdctl-{A}.scope", Name("container", A[:12], "containerd", A)),
        ("/default/web", Name("", "web")),
    ],
)
def test_containers_of_which_no_file_tells(path: str, name: Name) -> None:
    assert name_of(path, NONE) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/kubepods", Name("", "kubepods", "kubernetes")),
        ("/kubepods/burstable", Name("", "burstable", "kubernetes")),
        ("/burstable", Name("", "burstable")),
        ("/kubepods.slice", Name("slice", "kubepods.slice", "kubernetes")),
        ("/kubepods.slice/kubepods-besteffort.slice",
         Name("slice", "kubepods-besteffort.slice", "kubernetes")),
        (f"/kubepods/pod{UID}", Name("pod", UID, "kubernetes", UID, UID)),
        (f"/kubepods/burstable/pod{STATIC}", Name("pod", STATIC, "kubernetes", STATIC, STATIC)),
        (f"/kubepods/pod{UID}/{A}", Name("container", A[:12], "", A, UID)),
        (f"/kubepods/besteffort/pod{UID}/{A}", Name("container", A[:12], "", A, UID)),
        (f"/kubepods/besteffort/pod{UID}/crio-{A}", Name("container", A[:12], "cri-o", A, UID)),
        (f"/system.slice/kubepods-pod{UID_}.slice:cri-containerd:{A}",
         Name("container", A[:12], "containerd", A)),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice", Name("pod", UID, "kubernetes", UID, UID)),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"
         f"/cri-containerd-{A}.scope", Name("container", A[:12], "containerd", A, UID)),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"
         f"/crio-{A}.scope/container", Name("container", A[:12], "cri-o", A, UID)),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{A}.scope",
         Name("scope", f"monitor of {A[:12]}", "cri-o", A, UID)),
        # a kubelet with a cgroup root of its own, as in kind
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice"
         f"/cri-containerd-{A}.scope", Name("container", A[:12], "containerd", A, UID)),
        # Docker in a pod
        (f"/kubepods/burstable/pod{UID}/{A}/docker/{B}",
         Name("container", B[:12], "docker", B, UID, container=A[:12])),
        ("/podcast", Name("", "podcast")),
    ],
)
def test_pods_of_which_no_file_tells(path: str, name: Name) -> None:
    assert name_of(path, NONE) == name


PAGE = (Path(__file__).parents[2] / "docs/names.md").read_text()


def documented(heading: str) -> list[str]:
    """Return what is in backticks in the first columns of the tables below a heading."""
    rows = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    cells = " ".join(row.rpartition(" | ")[0] for row in rows if row.startswith("| "))
    return re.findall(r"`([^`]+)`", cells)


def test_the_page_has_an_example_of_every_rule() -> None:
    examples = [word.replace("UID", UID_).replace("ID", A).replace("*", "x")
                for word in documented("From the path")]
    examples += [word.replace("UID", UID) for word in documented("From the path")]
    assert [rule.pattern.pattern for rule in RULES
            if not any(rule.pattern.fullmatch(word) for word in examples)] == []


def test_the_page_has_every_file_and_every_key() -> None:
    for place in PLACES:
        assert place.files[0] in PAGE, place
        fixed = place.folders.partition("/*")[0].partition("/io.")[0].removesuffix("/libpod")
        assert f"/{fixed}" in PAGE, place
    for keys in KUBERNETES.values():
        for key in keys:
            short = key.removeprefix("io.kubernetes.").removeprefix("cri.")
            assert f"`{key}`" in PAGE or f"`{short}`" in PAGE, key


def told(*rows: Record) -> Records:
    return Records(rows)


def test_a_file_tells_the_name_and_the_path_the_engine() -> None:
    known = told(Record("docker", A, "web-1", where="/d"), Record("docker", A, where="/task"))
    for path in (f"/docker/{A}", f"/system.slice/docker-{A}.scope", f"/any/{A}"):
        assert name_of(path, known) == Name("container", "web-1", "docker", A, where="/d")
    assert name_of(f"/docker/{A}/system.slice/x.service", known).container == "web-1"


def test_a_name_may_have_any_character() -> None:
    known = told(Record("docker", A, "a\n\x1b[31mb", where="/d"))
    assert name_of(f"/docker/{A}", known).name == "a\n\x1b[31mb"
    assert find_by_name("a\n\x1b[31mb", known, [f"/docker/{A}"]) == [f"/docker/{A}"]


def test_an_id_that_others_may_have_counts_only_in_the_containers_own_cgroup() -> None:
    known = told(Record("runc", "web", "web", cgroup="/a/web", where="/r"),
                 Record("containerd", "web", "web", namespace="default", cgroup="/default/web"))
    assert name_of("/a/web", known) == Name("container", "web", "runc", "web", where="/r")
    assert name_of("/default/web", known).engine == "containerd"
    assert name_of("/b/web", known) == Name("", "web")
    assert find_by_name("web", known) == ["/a/web", "/default/web"]


def test_a_cgroup_that_two_containers_share_is_neithers() -> None:
    known = told(Record("runc", "a", "a", cgroup="/both"), Record("runc", "b", "b", cgroup="/both"))
    assert name_of("/both", known) == Name("", "both")


def test_a_users_files_count_in_that_users_slice_only() -> None:
    known = told(Record("podman", A, "root's?", owner=1000, where="/home"))
    own = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope"
    assert name_of(own, known).name == "root's?"
    for other in (f"/docker/{A}", own.replace("1000.slice", "1001.slice")):
        assert name_of(other, known)[1::6] == (A[:12], "")
    claims = told(Record("crun", "x", "x", cgroup="/system.slice/ssh.service", owner=1000))
    assert name_of("/system.slice/ssh.service", claims).kind == "unit"
    pods = told(Record("podman", "", pod="shop", pod_id=B, owner=1000))
    assert name_of(f"/libpod_parent/{B}", pods).name == B


PHP = Record("containerd", A, "", "web-0", UID, "shop", "php", f"/kubepods/pod{UID}/{A}",
             where="/c")
LOG = PHP._replace(id=B, container="log", cgroup=f"/kubepods/pod{UID}/{B}")


def test_a_pods_name_is_that_of_its_containers() -> None:
    pod = Name("pod", "web-0", "kubernetes", UID, "web-0", "shop", None, "/c")
    assert name_of(f"/kubepods/pod{UID}", told(PHP, LOG)) == pod
    assert name_of(f"/kubepods.slice/kubepods-pod{UID_}.slice", told(PHP)) == pod
    # containerd before 1.6 does not tell the uid: the pod is then what is around the container.
    older = PHP._replace(pod_id="")
    assert name_of(f"/kubepods/pod{UID}", told(older)) == pod
    # Two that disagree: neither is believed.
    liar = LOG._replace(pod="other")
    assert name_of(f"/kubepods/pod{UID}", told(PHP, liar)).name == UID


def test_what_runs_in_a_container_of_a_pod_is_in_both() -> None:
    inner = name_of(f"/kubepods/pod{UID}/{A}/docker/{C}", told(PHP))
    assert inner == Name("container", C[:12], "docker", C, "web-0", "shop", "php")


def test_a_pod_of_podman_has_its_name_from_its_database() -> None:
    known = told(Record("podman", A, "till", pod_id=B, where="/s"),
                 Record("podman", "", pod="depot", pod_id=B, where="/db"))
    assert name_of(f"/libpod_parent/{B}", known) == Name(
        "pod", "depot", "podman", B, "depot", where="/db")
    assert name_of(f"/x/{B}/libpod-{A}", known).pod == "depot"
    outside = name_of(f"/libpod_parent/libpod-{A}", known)  # a pod without a cgroup of its own
    assert outside[:5] == ("container", "till", "podman", A, "depot")


def test_words_that_find_a_container_or_a_pod() -> None:
    known, pod = told(PHP, LOG), f"/kubepods/pod{UID}"
    php, log = f"{pod}/{A}", f"{pod}/{B}"
    for word in ("php", "web-0/php", "shop/php", "shop/web-0/php", A, A[:4], A[:12]):
        assert find_by_name(word, known) == [php], word
    for word in ("web-0", "shop/web-0", UID, UID[:4]):
        assert find_by_name(word, known) == [pod], word
    assert find_by_name("log", known) == [log]
    for word in ("", "/", "shop", A[:3], "kubepods", "web"):
        assert find_by_name(word, known) == [], word


def test_a_name_goes_before_an_id() -> None:
    known = told(Record("docker", A, B[:6], cgroup=f"/docker/{A}"),
                 Record("docker", B, "other", cgroup=f"/docker/{B}"))
    assert find_by_name(B[:6], known) == [f"/docker/{A}"]
    assert find_by_name(B[:7], known) == [f"/docker/{B}"]


def test_only_an_engines_own_id_is_abbreviated() -> None:
    known = told(Record("runc", "cafe1234", "cafe1234", cgroup="/a/cafe1234"),
                 Record("docker", A, "web-1", cgroup=f"/docker/{A}"))
    assert find_by_name("cafe", known) == []
    assert find_by_name(A[:5], known, [f"/other/{A[:5]}"]) == []  # that path is meant
    assert find_by_name(A, known) == [f"/docker/{A}"]


def test_cgroups_that_exist_are_found_without_a_cgroup_in_the_files() -> None:
    known = told(Record("docker", A, "web-1"))
    paths = ["/", f"/docker/{A}", f"/docker/{A}/init.scope", f"/docker/{B}",
             f"/machine.slice/libpod-{C}.scope", f"/machine.slice/libpod-{C}.scope/container"]
    assert find_by_name("web-1", known) == []
    assert find_by_name("web-1", known, paths) == [f"/docker/{A}"]
    assert find_by_name(B[:12], known, paths) == [f"/docker/{B}"]  # its container has gone
    assert find_by_name(C[:12], known, paths) == [f"/machine.slice/libpod-{C}.scope"]


def test_crun_tells_the_group_inside_the_scope() -> None:
    scope = f"/machine.slice/libpod-{A}.scope"
    known = told(Record("crun", A, cgroup=f"{scope}/container"),
                 Record("podman", A, "web-1", cgroup=""))
    assert find_by_name("web-1", known) == [scope]
    assert name_of(f"{scope}/container", known) == name_of(scope, known)
