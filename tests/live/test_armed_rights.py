"""With which capabilities the armed recorder tells what: those of the unit in contrib/."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pagewalk.history.trigger import Trigger
from pagewalk.proc.cgroup_numbers import read_numbers
from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import working_sources
from tests.live.charged import MIB, Group, Running, group
from tests.live.command import PAGEWALK, pagewalk
from tests.live.test_armed import Recorder, limit, trigger_of
from tests.test_contrib import capabilities_of_the_unit

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="no BPF here"),
]
OWN = f"pagewalk-armed-rights-{os.getpid()}"
# What root has here: in a container some may be missing.
OURS = subprocess.run(["setpriv", "--dump"], check=True, capture_output=True, text=True).stdout
[BOUNDING] = [line.partition(": ")[2].split(",") for line in OURS.splitlines()
              if line.startswith("Capability bounding set: ")]
# Of pressure within less than 2 s: nothing else depends on it.
UNIT = [name for name in capabilities_of_the_unit() if name != "sys_resource"]


class Found(NamedTuple):
    """What was recorded of a process that neared its limit and was killed."""

    near: dict[str, int | None]  # what it had in RAM, as `show` tells
    kill: Trigger
    locked: int  # KiB of the recorder's own


def used(where: Group) -> int:
    """Return what a group is charged for, in whole MiB."""
    current = read_numbers(find_hierarchy(), where.path).current
    assert current is not None
    return -(-current // MIB) * MIB


@contextmanager
def someone(where: Group) -> Iterator[Running]:
    """Run a program of another user in a group, which grows step by step."""
    words = [sys.executable, "-m", "tests.targets.charges", "/dev/null", "grows", 48 * MIB, MIB]
    line = f"echo 0 > {where.procs} && exec setpriv --reuid=65534 --clear-groups " + " ".join(
        map(str, words))
    with subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def recorded(folder: Path, *capabilities: str) -> Found:
    """Arm a recorder with exactly these capabilities, and have it record both."""
    words = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    before = ("setpriv", f"--bounding-set={words}", f"--inh-caps={words}",
              f"--ambient-caps={words}", "--no-new-privs")
    with group(OWN) as where, someone(where) as running:
        command = [*before, *PAGEWALK, "record", "--armed", where.path, "-o", str(folder),
                   "--at-most", "0", "--look", "0", "--pressure", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            recorder = Recorder(process, folder)
            try:
                recorder.wait_for("pagewalk: armed: ")
                limit(where, 512 * MIB)
                limit(where, used(where) + 2 * MIB)
                near = recorder.recorded("near")
                status = Path(f"/proc/{process.pid}/status").read_text()
                assert running.die() == 9
                kill = recorder.recorded("kill")
            finally:
                if process.poll() is None:
                    recorder.end()
        shown = pagewalk("show", f"{near}:{running.pid}", "--format", "json").json
    [locked] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck:")]
    return Found(shown["totals"], trigger_of(kill), locked)


def test_setpriv_knows_the_capabilities_of_the_unit() -> None:
    assert {*UNIT} <= {*BOUNDING}


def test_with_those_of_the_unit_all_is_told_and_without_any_of_them_it_is_not(
    tmp_path: Path
) -> None:
    found = recorded(tmp_path / "unit", *UNIT)
    assert None not in found.near.values()
    assert (found.near["uss"] or 0) >= 48 * MIB
    assert found.kill.kills is not None and found.kill.events["oom_kill"] == 1
    assert found.locked > 0
    lacks = {}
    for name in UNIT:
        found = recorded(tmp_path / name, *({*UNIT} - {name}))
        lacks[name] = {*(["uss"] if found.near["uss"] is None else []),
                       *(["freed"] if found.near["freed"] is None else []),
                       *(["killed"] if found.kill.kills is None else []),
                       *(["locked"] if not found.locked else [])}
    assert lacks == {
        "bpf": {"uss", "freed"}, "perfmon": {"uss", "freed"}, "sys_ptrace": {"freed"},
        "dac_read_search": {"freed"}, "syslog": {"killed"}, "ipc_lock": {"locked"},
    }
