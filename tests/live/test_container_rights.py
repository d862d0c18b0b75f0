"""Root in a real container without rights on the host: what counters tell, and why not more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.command import Ran, run
from tests.machine import MachineLacks

pytestmark = pytest.mark.live
MIB = 1 << 20
# 64 pages a CPU may not be in memory.stat yet, and as many are not worth adding up
# (memcg_vmstats_needs_flush).
LAG = 2 * 64 * 4096 * (os.cpu_count() or 1)
# The machine's files are the container's, read-only; its /proc, /sys and cgroups are runc's.
MOUNTED = 'mount --rbind / "$0" && exec "$@"'
# Charges the container for 20 MiB of memory, which is held as long as what it starts runs.
HOLD = f"import subprocess, sys; held = b'x' * {20 * MIB}; sys.exit(subprocess.call(sys.argv[1:]))"
PAGEWALK = (sys.executable, "-c", HOLD, sys.executable, "-m", "pagewalk")


def contained(folder: Path, *words: object) -> Ran:
    """Run pagewalk as root in a container by runc, with the rights that are runc's default."""
    whole, bundle = folder / "whole", folder / "bundle"
    for path in (whole, bundle):
        path.mkdir(exist_ok=True)
    (bundle / "config.json").unlink(missing_ok=True)
    try:
        subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    except FileNotFoundError:
        raise MachineLacks("runc: install the packages in scripts/test-packages.txt") from None
    config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": [*PAGEWALK, *map(str, words)], "terminal": False,
                          "cwd": str(Path.cwd())}
    config["process"].pop("rlimits", None)
    config["root"] = {"path": str(whole), "readonly": True}
    name = f"pagewalk-{os.getpid()}-rights"
    config["linux"]["cgroupsPath"] = f"/{name}"
    (bundle / "config.json").write_text(json.dumps(config))
    return run("unshare", "--mount", "--propagation=private", "sh", "-c", MOUNTED, whole,
               "runc", "--root", folder / "state", "run", "--bundle", bundle, name)


def told(ran: Ran) -> str:
    """Check that it is partial and says what right is missing; return what it wrote."""
    assert ran.code == 3, ran.err
    text = " ".join(f"{ran.out} {ran.err}".split())
    assert "partial: what each frame is used for: source 'ebpf' is not available" in text
    assert "grant CAP_BPF and CAP_PERFMON" in text
    return text


def test_ram_is_what_counters_tell(tmp_path: Path) -> None:
    text = told(contained(tmp_path, "ram"))
    assert "The kernel estimates that" in text
    ran = contained(tmp_path, "ram", "--format", "json")
    told(ran)
    assert ran.json["source"] == {"name": "counters"}
    assert sum(ran.json["kinds"].values()) == ran.json["total"] > 0
    assert ran.json["headroom"] is None and ran.json["ledger"] == []


@pytest.mark.parametrize("words", [("--files",), ("--slab",), ("--map",), ("--source", "ebpf"),
                                   ("--source", "kcore"), ("--source", "procfs")])
def test_what_takes_frames_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = contained(tmp_path, "ram", *words)
    assert ran.code in (1, 6), ran.err
    assert ran.out == "" and ran.err.startswith("pagewalk: ")
    assert "run as root" in ran.err or "--source ebpf" in ran.err


def test_its_own_group_is_explained_by_counters(tmp_path: Path) -> None:
    # Of a PID namespace of its own 1 is the first process, which holds the memory.
    ran = contained(tmp_path, "explain", "--cgroup", 1, "--format", "json")
    told(ran)
    found = ran.json
    assert sum(found["kinds"].get(kind, 0) for kind in ("anon", "anon_huge")) >= 20 * MIB - LAG
    assert found["charged"] >= 20 * MIB
    for withheld in ("pages", "caches", "mapped", "files", "headroom", "dying", "ledger"):
        assert found[withheld] is None
    text = told(contained(tmp_path, "explain", "--cgroup", 1))
    assert "are charged to it:" in text and "KiB anonymous memory" in text


def test_cgroups_are_those_that_it_sees(tmp_path: Path) -> None:
    ran = contained(tmp_path, "cgroups", "--format", "json")
    told(ran)
    name = f"/pagewalk-{os.getpid()}-rights"
    paths = {row["path"]: row for row in ran.json["cgroups"]}
    # In a cgroup namespace (runc's default for version 2) its own group is the root.
    assert paths[name if find_hierarchy().version == 1 else "/"]["anon"] >= 20 * MIB - LAG
    assert ran.json["removed"] is None
    assert "removed groups are not visible" in told(contained(tmp_path, "cgroups"))
    ran = contained(tmp_path, "cgroups", "--dying")
    assert ran.code == 6 and ran.out == "" and "grant CAP_BPF" in ran.err
