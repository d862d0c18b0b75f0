"""The unit in contrib/, started by a real systemd: what it records, and what without its rights."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from pagewalk.history.trigger import Trigger
from tests.live.booted import boot
from tests.live.bracket import working_sources
from tests.live.charged import MIB
from tests.live.command import pagewalk
from tests.live.test_armed import OLD, trigger_of
from tests.machine import IN_GUEST
from tests.test_contrib import UNIT, capabilities_of_the_unit

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="no BPF here"),
]
LIMIT = 64  # MiB, of the service
NEAR = 58  # of anonymous memory, with which it is near that
# The program of the service: it grows when it is told to.
SHOP = f"""
import mmap, os, time

held = []

def grow(until):
    while anon() < until:
        held.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].write(bytes([1]) * (1 << 20))

def anon():
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) >> 10

def wait_for(name):
    while not os.path.exists(f"/run/told/{{name}}"):
        time.sleep(0.01)
    os.unlink(f"/run/told/{{name}}")

grow(30)
wait_for("near")
grow({NEAR})
wait_for("full")
grow(1 << 20)
"""
SHOP_UNIT = f"""[Unit]
Wants=pagewalk-armed@shop.service
[Service]
User=65534
MemoryMax={LIMIT}M
MemorySwapMax=0
ExecStart=/usr/bin/python3 /out/shop.py
"""
# With each drop-in of /out/tried: start both, and keep what was recorded, what the unit wrote and
# what its process was. With the last one the service is started again whenever it ends.
SCRIPT = """
set +x
recorder=pagewalk-armed@shop
made=/var/lib/pagewalk/shop
mkdir -m 777 /run/told
recorded() {
    for at in $(seq 1500); do
        [ $(find $made -name "*Z-$1-*.parquet" | wc -l) -lt $2 ] || return 0
        [ $2 -gt 1 ] || systemctl is-active --quiet $recorder || return 1
        sleep 0.02
    done
    return 1
}
until_killed() {
    recorded armed $1 || return 0
    touch /run/told/near
    recorded near $1 || true
    touch /run/told/full
    recorded kill $1 || true
}
for folder in /out/tried/*; do
    for unit in shop $recorder; do
        mkdir -p /run/systemd/system/$unit.service.d
        cp $folder/$unit /run/systemd/system/$unit.service.d/tried.conf
    done
    systemctl daemon-reload
    systemctl start shop $recorder
    recorded armed 1 || true
    cp /proc/$(systemctl show --property=MainPID --value $recorder)/status $folder/status || true
    until_killed 1
    if [ $folder = /out/tried/restarted ]; then
        until_killed 2
        systemctl stop shop
        for at in $(seq 300); do
            case $(systemctl show --property=ActiveState --value $recorder) in
            inactive | failed) break ;;
            esac
            sleep 0.1
        done
        systemctl show --property=ActiveState --value $recorder >$folder/ended
    fi
    systemctl stop shop $recorder
    journalctl --output=cat --unit=$recorder >$folder/log
    mv $made $folder/made || mkdir $folder/made
    journalctl --rotate --quiet
    journalctl --vacuum-time=1us --quiet
    rm -f /run/told/*
done
"""
# include/uapi/linux/capability.h
CAPABILITIES = {"dac_read_search": 2, "ipc_lock": 14, "sys_ptrace": 19, "syslog": 34,
                "perfmon": 38, "bpf": 39}
# What the unit says that the recorder is not protected from.
NEEDED = ("ProtectControlGroups", "ProtectKernelLogs", "PrivateUsers")
# What is not found out, or not done, without a capability.
LACKS = {
    "bpf": {"distinct", "freed"}, "perfmon": {"distinct", "freed"}, "sys_ptrace": {"freed"},
    "dac_read_search": {"freed"}, "syslog": {"killed"}, "ipc_lock": {"locked"},
}


class Found:
    """What was recorded of a service that neared its limit and was killed.

    ``log`` is what the unit wrote, ``status`` of its process.
    """

    def __init__(self, folder: Path) -> None:
        self.log = (folder / "log").read_text()
        self.files: dict[str, list[Path]] = {}
        for path in sorted((folder / "made").iterdir()):
            self.files.setdefault(path.name.split("Z-")[1].partition("-")[0], []).append(path)
        ended = folder / "ended"
        self.ended = ended.read_text() if ended.exists() else ""
        status = folder / "status"
        text = status.read_text() if status.exists() else ""
        self.status = dict(re.findall(r"(?m)^(\w+):\s+(\w+)", text))

    def near(self) -> dict[str, Any]:
        """Return what the service had in RAM when it neared its limit."""
        [path] = self.files["near"]
        [member] = trigger_of(path).now.members
        return dict(pagewalk("show", f"{path}:{member.pid}", "--format", "json").json["totals"])

    def kill(self) -> Trigger:
        """Return why the recording of the kill was made."""
        return trigger_of(self.files["kill"][0])

    def lacks(self) -> set[str]:
        """Return what of it was not found out, or not done."""
        if "near" not in self.files:
            return {"all"}
        near = self.near()
        named = "kill" in self.files and bool(self.kill().kills)
        return {*(name for name in ("distinct", "freed") if near[name] is None),
                *([] if named else ["killed"]), *([] if int(self.status["VmLck"]) else ["locked"])}


def tried() -> dict[str, tuple[str, str]]:
    """Return what is tried: drop-ins of the unit and of the service.

    In a guest each takes 30 s: what does not depend on the kernel is left out.
    """
    names = ["syslog"] if IN_GUEST else capabilities_of_the_unit()
    needed = NEEDED[:1] if IN_GUEST else NEEDED
    return {
        "as it is": ("", ""), "restarted": ("", "Restart=always"),
        **{name: (f"CapabilityBoundingSet=~CAP_{name.upper()}\nLimitMEMLOCK=8M", "")
           for name in names},
        **{name: (f"{name}=yes", "") for name in needed},
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """Return what was recorded each time."""
    folder = tmp_path_factory.mktemp("unit")
    (folder / "out").mkdir()
    (folder / "out/shop.py").write_text(SHOP)
    for name, dropins in tried().items():
        (folder / "out/tried" / name.replace(" ", "-")).mkdir(parents=True)
        for unit, lines in zip(("pagewalk-armed@shop", "shop"), dropins, strict=True):
            path = folder / "out/tried" / name.replace(" ", "-") / unit
            path.write_text(f"[Service]\n{lines}\n")
    units = {"pagewalk-armed@.service": UNIT, "shop.service": SHOP_UNIT}
    boot(folder, f"pagewalk-unit-{os.getpid()}", units, SCRIPT)
    return {name: Found(folder / "out/tried" / name.replace(" ", "-")) for name in tried()}


def test_the_service_is_recorded_near_its_limit_and_when_it_is_killed(
    found: dict[str, Found]
) -> None:
    one = found["as it is"]
    assert one.lacks() == set(), one.log
    assert "not noticed" not in one.log and "cannot" not in one.log
    near = one.near()
    assert NEAR * MIB <= near["anon"] <= LIMIT * MIB
    [killed] = one.kill().kills or ()
    assert killed.of_limit and (killed.group or "").endswith("/shop.service")
    assert NEAR * MIB <= killed.anon <= LIMIT * MIB
    ran = pagewalk("explain", one.files["kill"][0])
    said = " ".join(ran.out.split())
    assert ran.code == 0 and "shop.service: killed for lack of memory, 20" in said
    assert f"The kernel killed {killed.name} ({killed.pid}), with" in said
    assert f"of a limit of {LIMIT << 10} KiB" in said and "Most of it was anonymous memory" in said


def test_the_recorder_has_the_rights_of_the_unit_and_no_others(found: dict[str, Found]) -> None:
    status = found["as it is"].status
    wanted = sum(1 << CAPABILITIES[name] for name in capabilities_of_the_unit())
    [ours] = re.findall(r"(?m)^CapBnd:\s+(\w+)$", Path("/proc/self/status").read_text())
    rights = {int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")}
    assert rights == {wanted & int(ours, 16)}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_without_any_of_its_capabilities_less_is_told(found: dict[str, Found]) -> None:
    assert {*LACKS} == {*capabilities_of_the_unit()}
    lacks = {name: found[name].lacks() for name in LACKS if name in found}
    if lacks.get("sys_ptrace") == {"all"}:  # up to 6.12; in 6.18 CAP_PERFMON may read maps
        lacks["sys_ptrace"] = LACKS["sys_ptrace"]
    assert lacks == {name: LACKS[name] for name in lacks}


def test_what_it_is_not_protected_from_it_needs(found: dict[str, Found]) -> None:
    one = found["ProtectControlGroups"]
    if OLD:  # all that is reported is asked for in a file of the group
        assert one.lacks() == {"all"} and "memory.oom_control: Read-only file system" in one.log
    else:
        assert "not noticed: memory.pressure: Read-only file system" in one.log
    if not IN_GUEST:
        assert found["ProtectKernelLogs"].lacks() == {"killed"}
        assert found["PrivateUsers"].lacks() == {"all"}


def test_it_starts_again_with_the_service_and_ends_with_it(found: dict[str, Found]) -> None:
    one = found["restarted"]
    pids = [trigger_of(path).now.members[0].pid for path in one.files["armed"]]
    assert len({*pids}) == len(pids) == 2
    killed = [kill.pid for path in one.files["kill"] for kill in trigger_of(path).kills or ()]
    assert len({*killed}) == len(killed) == 2
    # The last time the service was not there any more.
    assert "no memory cgroup is called 'shop.service'" in one.log
    assert one.ended == "inactive\n"
