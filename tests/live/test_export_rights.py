"""With which capabilities `export` tells what: those of the container and of the DaemonSet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.live.bracket import working_sources
from tests.live.command import Ran, pagewalk
from tests.live.test_export import METRICS, SLOW, alone_together, of_top, series
from tests.machine import memory_cgroup
from tests.targets import start

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="no BPF here"),
]
CONTRIB = Path(__file__).parents[2] / "contrib"
LEAST = ("BPF", "PERFMON", "SYS_PTRACE")
ALL = ("SYS_ADMIN", "SYS_PTRACE", "SYSLOG")
# What only frames tell.
FRAMES = {"pagewalk_cgroup_reclaimable_bytes", "pagewalk_cgroup_headroom_bytes",
          "pagewalk_cgroups_removed", "pagewalk_cgroups_removed_bytes",
          "pagewalk_ram_reclaimable_bytes"}


def export(*capabilities: str, user: int = 0) -> Ran:
    """Run `export --once` with exactly these capabilities."""
    words = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    return pagewalk("export", "--once", "--limit", 10_000, *SLOW, before=(
        "setpriv", f"--reuid={user}", "--clear-groups", f"--bounding-set={words}",
        f"--inh-caps={words}", f"--ambient-caps={words}"))


def withheld(ran: Ran) -> set[str]:
    return {label for (name, label), value in series(ran.out).items()
            if name == "pagewalk_withheld" and value}


def test_the_daemonset_and_the_container_have_the_least() -> None:
    daemonset = yaml.safe_load((CONTRIB / "kubernetes/daemonset.yaml").read_text())
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": [*LEAST]}
    dockerfile = (CONTRIB / "container/Dockerfile").read_text()
    assert tuple(re.findall(r"--cap-add (\w+)", dockerfile)) == LEAST


@pytest.mark.parametrize(("capabilities", "user"), [(LEAST, 0), (ALL, 0), (LEAST, 65534)])
def test_what_processes_hold_takes_no_more_than_the_least(
    capabilities: tuple[str, ...], user: int, tmp_path: Path
) -> None:
    with memory_cgroup("rights") as group, alone_together(tmp_path, group) as pids:
        path, line = f"/{group.name}", of_top("cgroup", f"/{group.name}", pids)
        found = series(export(*capabilities, user=user).out)
        assert line == {name: found[f"pagewalk_cgroup_{metric}", path]
                        for name, metric in METRICS.items()}
        written = (1 << 20) + (1 << 18)  # by the first, and by the second anew
        assert found["pagewalk_cgroup_charged_bytes", path] >= written
        assert ("pagewalk_cgroup_unwalked_processes", path) not in found


def test_none_of_the_least_can_be_left_out() -> None:
    for name in ("BPF", "PERFMON"):
        found = series(export(*({*LEAST} - {name}), user=65534).out)
        assert not any(metric.endswith("_uss_bytes") for metric, _ in found)
    # Without the third two processes with one address space count as two, walked or not: if they
    # were not walked together with others, older kernels refuse a walk of their own.
    with memory_cgroup("rights") as group, start("shared_mm", stopped=True) as running:
        for pid in running.pids:
            (group / "cgroup.procs").write_text(str(pid))
        many = []
        for names in (LEAST, LEAST[:2]):
            found = series(export(*names, user=65534).out)
            many.append(sum(found.get((f"pagewalk_cgroup_{kind}", f"/{group.name}"), 0)
                            for kind in ("processes", "unwalked_processes")))
    assert (len(running.pids), many) == (2, [1, 2])


def test_what_only_frames_tell_takes_more() -> None:
    assert withheld(export(*LEAST)) >= FRAMES
    assert not withheld(export(*ALL)) & FRAMES


def test_without_any_nothing_of_others_is_told_and_nothing_is_zero() -> None:
    ran = export(user=65534)
    found = series(ran.out)
    assert ran.code == 3 and "partial: " in ran.err
    assert not any(name.endswith("_uss_bytes") for name, _ in found)
    assert found["pagewalk_user_unwalked_processes", "root"] > 0
