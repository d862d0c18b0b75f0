"""RAM and cgroups from a recording: each command says what it said on the machine."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pagewalk.history.record_ram import look_at
from pagewalk.kernel.structs.memcgs import all_groups
from pagewalk.kernel.structs.slabs import read_caches
from pagewalk.model.arrow import parquet
from pagewalk.model.frames import Frames, Kind
from pagewalk.sources.ram import RamSource, open_ram
from pagewalk.system.cached import add_up_files
from pagewalk.system.looks import LOOKS
from pagewalk.system.machine import LiveMachine
from pagewalk.system.metered import ram_and_groups
from pagewalk.system.one_scan import OneScan
from pagewalk.system.survey import opened
from tests.history.machine import Held, recorded
from tests.live.bracket import look_again, working_sources
from tests.live.charged import MIB, charging, group
from tests.live.command import Ran, pagewalk, pagewalk_here
from tests.targets import start

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

FORMATS = ("text", "json", "csv")
VIEWS = (
    ("ram",), ("ram", "--ledger"), ("ram", "--files"), ("ram", "--slab"), ("ram", "--map"),
    ("ram", "--files", "--sort", "dirty", "--limit", "3"), ("ram", "--files", "--columns", "huge"),
    ("ram", "--slab", "--sort", "unused", "--limit", "4"), ("cgroups",), ("cgroups", "--dying"),
    ("cgroups", "--sort", "kernel", "--limit", "5"), ("cgroups", "--columns", "anon,limit"),
)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# Without root, and with nothing at /proc.
ELSEWHERE = ("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc &&"
             ' exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"', "sh")
# The lowest and the highest address of the kernel, on any machine here, as int64; sums and
# differences of bytes do not come near.
KERNELS = range(-(1 << 56), -(1 << 40))


class Counted(RamSource):
    """All of RAM, which notes how often it is scanned."""

    scans = 0

    def frames(self) -> Iterator[Frames]:
        """Yield all frames."""
        type(self).scans += 1
        return super().frames()


def test_ram_is_scanned_once_for_all_looks_and_told_as_by_scans_of_their_own(
    tmp_path: Path
) -> None:
    source, again = Counted(*open_ram()), LiveMachine(open_ram())
    kept = tmp_path / "kept"
    kept.write_bytes(os.urandom(3 * MIB))
    with kept.open("rb") as file:
        os.fsync(file.fileno())
        machine = OneScan(source, physical=True)
        looks = look_at(machine, physical=True)
        assert looks.missing == {}
        ram = looks.found["ram"]
        assert sum(ram.parts.values()) == ram.total == again.ram().total
        assert looks.found["map"].found.stretches.pages.sum() * source.facts.page_size == ram.total
        inode = os.fstat(file.fileno()).st_ino
        for found in (looks.found["files"], again.files()):
            assert [one.amounts[0] for one in found.report.files if one.inode == inode] in (
                [], [3 * MIB])  # of many files it may be too small to be named
        assert {one.name for one in looks.found["slab"].slabs.caches} >= {"dentry", "filp"}
    # RAM itself again only where something moved that nothing explains.
    assert 1 <= Counted.scans <= LOOKS
    Counted.scans = 0
    ram, groups, why = ram_and_groups(source)
    assert groups is not None and why == () and Counted.scans == 1
    assert groups.amounts.unmapped is not None and sum((ram.parts or {}).values()) == ram.total


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Held, str]:
    """Return this machine as it was seen once, and a recording of just that."""
    machine = OneScan(open_ram(), physical=True)
    looks = look_at(machine, physical=True)
    assert looks.missing == {}
    path = recorded(tmp_path_factory.mktemp("machine") / "a", machine.facts, looks)
    return Held(machine.facts, looks), path


@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
def test_every_view_is_the_same(
    words: tuple[str, ...], seen: tuple[Held, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, path = seen
    monkeypatch.setattr("pagewalk.system.machine.LiveMachine", lambda _: held)
    for name in FORMATS:
        if name == "csv" and "--map" in words:
            continue
        live = pagewalk_here(*words, "--format", name)
        assert live.code in (0, 3, 4) and live.out, live.err
        then = pagewalk_here(words[0], path, *words[1:], "--format", name)
        note = f"pagewalk: {path} was recorded on " if name == "text" else ""
        assert (then.code, then.out) == (live.code, live.out)
        said = then.err.splitlines()
        assert [line for line in said if not note or not line.startswith(note)] == (
            live.err.splitlines())
        assert len(said) == len(live.err.splitlines()) + bool(note)


SECRET = f"pagewalk-secret-{os.getpid()}"


class Made(NamedTuple):
    """A recording of RAM and of a cgroup called SECRET, and what addresses the kernel had then."""

    path: Path
    group: str
    words: set[int]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """Record RAM, where a file is called SECRET, and a cgroup called so; both stay for a while."""
    file = Path("/dev/shm") / SECRET
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as folder, group(SECRET) as where:
        os.chmod(folder, 0o755)
        try:
            file.write_bytes(b"x" * MIB)
            with charging(where, "anon", 4 * MIB):
                words, path = kernel_words(), Path(folder) / "a"
                ran = pagewalk_here("record", "--ram", "--cgroup", where.path, "-o", path)
                assert ran.code == 0, ran.err
                assert re.search(rf": cgroup {where.path}, all of RAM, \d+ cgroups, 1 process with"
                                 r" [\d.]+M in RAM, recorded in [\d.]+ s into \d+K", ran.out)
                yield Made(path, where.path, words | kernel_words())
        finally:
            file.unlink(missing_ok=True)


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a directory that everybody may write to."""
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as path:
        os.chmod(path, 0o777)
        yield Path(path)


def read_elsewhere(path: Path, *words: object) -> Ran:
    """Run a command on a copy of recording ``path``, as nobody and without /proc."""
    copy = path.with_suffix(".public")
    shutil.copyfile(path, copy)
    copy.chmod(0o644)
    return pagewalk(words[0], copy, *words[1:], before=ELSEWHERE)


def test_ram_without_root_and_without_proc(made: Made) -> None:
    assert made.path.stat().st_mode & 0o777 == 0o600
    for words in (("ram",), ("ram", "--files"), ("cgroups", "--dying")):
        ran = read_elsewhere(made.path, *words, "--format", "json")
        assert ran == pagewalk_here(words[0], made.path, *words[1:], "--format", "json")
    ram = pagewalk_here("ram", made.path, "--format", "json").json
    assert ram["total"] == pagewalk_here("ram", "--format", "json").json["total"]
    assert sum(ram["kinds"].values()) == ram["total"]
    lacking = read_elsewhere(made.path, "ram", "--map")
    assert lacking.code == 2 and "without --physical" in lacking.err


def test_who_may_not_see_frames_records_counters(public: Path) -> None:
    path = public / "a"
    ran = pagewalk("record", "--ram", "-o", path, before=NOBODY)
    assert ran.code == 3 and "run as root" in ran.err
    found = pagewalk_here("ram", path, "--format", "json")
    assert found.code == 3 and found.json["source"]["name"] == "counters"
    assert sum(found.json["kinds"].values()) == found.json["total"]
    groups = pagewalk_here("cgroups", path, "--format", "json")
    assert groups.code == 3 and groups.json["cgroups"]
    removed = pagewalk_here("cgroups", path, "--dying")
    assert removed.code == 2 and "not visible without frames" in removed.err
    files = pagewalk_here("ram", path, "--files")
    assert files.code == 2 and "does not have the page cache by file" in files.err
    assert "run as root" in files.err


def test_rows_add_up_to_what_the_documents_say(made: Made) -> None:
    path = made.path
    rows = parquet().read_table(path).to_pylist()

    def total(record: str, column: str, **where: object) -> int:
        return sum(row[column] or 0 for row in rows if row["record"] == record
                   and row["of_cgroup"] is None
                   and all(row[name] == value for name, value in where.items()))

    ram, files, slab, groups = (pagewalk_here(*words, "--format", "json").json for words in (
        ("ram", path), ("ram", path, "--files"), ("ram", path, "--slab"), ("cgroups", path)))
    assert total("ram", "size") == ram["total"]
    for sort, said in files["totals"].items():
        for column, name in (("size", "cached"), ("mapped", "mapped"), ("items", "files")):
            assert total("file", column, state=sort) == said[name]
    assert total("cache", "size") == slab["total"]
    assert total("cache", "reclaimable") == slab["reclaimable"]
    by_path = {row["cgroup"]: row for row in rows if row["record"] == "group"
               and not row["removed"]}
    assert {one["path"] for one in groups["cgroups"] if not one["removed"]} == set(by_path)
    for one in groups["cgroups"]:
        row = by_path[one["path"]]
        assert (row["size"], row["allowed"], row["anon"]) == (
            one["charged"], one["limit"], one["anon"])


def explained(*words: object) -> dict[str, Any]:
    ran = pagewalk_here("explain", *words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    found: dict[str, Any] = ran.json
    # what others do: the groups around it, and how long anybody waited
    for key in ("above", "pressure", "swap_room"):
        del found[key]
    return found


def test_a_cgroup_is_explained_as_it_was(public: Path) -> None:
    path = public / "a"
    with group(f"pagewalk-record-{os.getpid()}") as where, charging(where, "anon", 30 * MIB):

        def look() -> dict[str, Any]:
            before = explained(where.path)
            ran = pagewalk_here("record", "--cgroup", where.path, "-o", path)
            assert ran.code == 0, ran.err
            found = explained(path)
            assert before == explained(where.path)
            assert found == before
            return found

        found = look_again(look, 9)
    # the group is gone, and is explained all the same: by its path, by its name, by anybody
    assert found["cgroup"]["path"] == where.path and found["kinds"]
    assert explained(f"{path}:{where.path}") == found
    assert explained("--cgroup", f"{path}:{where.path.rpartition('/')[2]}") == found
    ran = read_elsewhere(path, "explain", "--format", "json")
    assert ran.code == 0 and ran.json["cgroup"] == found["cgroup"], ran.err
    (process,) = found["processes"]
    one = pagewalk_here("explain", f"{path}:{process['pid']}", "--no-smaps", "--format", "json")
    assert one.json["process"]["pid"] == process["pid"], one.err
    rows = parquet().read_table(path).to_pylist()
    (row,) = [row for row in rows if row["record"] == "group"]
    assert row["size"] == found["charged"] and row["anon"] >= 30 * MIB


def test_a_cgroup_without_processes(public: Path) -> None:
    with group(f"pagewalk-empty-{os.getpid()}") as where:
        ran = pagewalk_here("record", "--cgroup", where.path, "-o", public / "a")
    assert ran.code == 0 and f"cgroup {where.path}, recorded" in ran.out, ran.err
    assert explained(public / "a")["processes"] == []


def kernel_words() -> set[int]:
    """Return where cgroups, files and slab caches of this kernel are, and who is charged."""
    source = open_ram(kernel=True)
    running, slabs = opened(source), []
    frames = []
    for one in source.frames():
        assert one.object is not None
        frames.append(one)
        slabs.append(np.unique(one.object[one.kind == Kind.SLAB.value]))
    cached = add_up_files(frames)
    assert cached.owner is not None
    caches = read_caches(running.kernel, np.unique(np.concatenate(slabs)))
    columns = (all_groups(running.kernel).memcg, cached.object, cached.owner, caches.address)
    return {int(word) for column in columns for word in column.tolist() if word > 1 << 48}


def integers(value: Any) -> Iterator[int]:
    """Yield the numbers of a document, also those in its columns."""
    if isinstance(value, dict) and {"dtype", "data"} <= value.keys():
        array = np.frombuffer(base64.b64decode(value["data"]), value["dtype"])
        yield from (int(one) for one in array.tolist())
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from integers(one)
    elif isinstance(value, int):
        yield value


def test_no_address_of_the_kernel_is_in_it(made: Made) -> None:
    assert len(made.words) > 100
    table = parquet().read_table(made.path)
    found: set[int] = set()
    for column in table.columns:
        if str(column.type) == "int64":
            found |= set(column.drop_null().to_pylist())
    texts = [text for text in table.column("text").to_pylist() if text]
    assert len(texts) > 5
    for text in texts:
        found |= set(integers(json.loads(text)))
        assert not re.search(r"\b(?:0x)?ffff[0-9a-f]{12}\b", text)
    assert found & made.words == set()
    assert {one & ((1 << 64) - 1) for one in found if one < 0} & made.words == set()
    assert [one for one in found if one in KERNELS or one >= 1 << 63] == []


def test_the_machine_without_names(made: Made, public: Path) -> None:
    path = public / "a"
    assert SECRET.encode() in whole(made.path)
    with start("plain", stopped=True) as running:
        ran = pagewalk_here("record", "--machine", "--cgroup", made.group, "--scrub", "-o", path)
    assert ran.code in (0, 3), ran.err
    assert SECRET.encode() not in whole(path)
    said = pagewalk_here("ram", path, "--files", "--format", "json").json["files"]
    assert said and {one["path"] for one in said} == {None}
    assert re.search(r"/\d+", pagewalk_here("cgroups", path, "--format", "csv").out)
    table = parquet().read_table(path)
    kinds = table.column("record").to_pylist()
    assert {"process", "page", "ram", "file", "cache", "group"} <= set(kinds)
    pids = {row for row, kind in zip(table.column("pid").to_pylist(), kinds, strict=True)
            if kind == "process"}
    assert len(pids) > 1 and running.pid in pids


def whole(path: Path) -> bytes:
    """Return all texts of a recording."""
    table = parquet().read_table(path)
    said = [str(value) for name in ("name", "cgroup", "program", "command", "text", "of_cgroup")
            for value in table.column(name).to_pylist() if value]
    metadata = parquet().read_metadata(path).metadata
    return "\n".join(said).encode() + b"".join(metadata.values())
