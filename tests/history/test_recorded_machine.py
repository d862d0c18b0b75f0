"""A machine that was recorded answers as it did, and says what it lacks."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagewalk.history.hidden import Hidden, Names
from pagewalk.history.record_groups import GroupLook, add_look
from pagewalk.history.record_ram import Looks
from pagewalk.history.recorded_machine import RecordedMachine, one_group
from pagewalk.kernel.bpf_maps import BpfMap
from pagewalk.kernel.structs.vmap_areas import AreaSums
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import BadTarget
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.system import slabs
from pagewalk.system.containers import Name
from pagewalk.system.files import Charge, Sort
from pagewalk.system.kernel_memory import KernelMemory
from pagewalk.system.machine import FilesLook, MapLook
from pagewalk.system.ram_map import Piece, RamMap, Stretches
from tests.history.machine import recorded
from tests.live.command import pagewalk_here
from tests.snapshot.by_hand import FACTS, META
from tests.system import by_hand

MIB = 1 << 20
WORD = 0xFFFF_8881_2345_6002
WEB = Name("container", "web", "docker", "f" * 64, where="/var/lib/docker/x")
NAMES = {path: Name("", path.rpartition("/")[2] or "/") for path in ("/", "/db", "/app/old")}


def looks() -> Looks:
    """Return all that can be recorded of a machine, with an address of the kernel in each."""
    report = by_hand.group().files
    assert report is not None
    one = by_hand.file(Sort.FILE, "/srv/\udcff", MIB, charges=(Charge(WORD, MIB),))
    report = report._replace(files=(*report.files, one), totals={
        **report.totals, Sort.FILE: report.totals[Sort.FILE]._replace(files=9)})
    cache = slabs.Cache("dentry", 8192, 192, 2, 42, 40, 41, True, (slabs.Charge("/app", 3, 576),))
    kernel = KernelMemory(
        slabs.SlabReport((cache,), 4096, 0, ()), 4096,
        AreaSums(np.array([2], np.uint8), np.array([1]), np.array([3]), ("load_module",)),
        (BpfMap(1, "secret", 2, 4096),), None, (Withheld("x", f"at {WORD:#x}"),))
    place = MapLook(RamMap(3, Stretches(np.array([5]), np.ones((1, 6), np.int64)), Piece(41, 2)),
                    ())
    return Looks({
        "ram": by_hand.ram(), "files": FilesLook(report, {WORD: "/app"}), "slab": kernel,
        "map": place, "cgroups": by_hand.group_table(), "names": Names({**NAMES, "/app": WEB}),
    }, {})


@pytest.fixture
def machine(tmp_path: Path) -> RecordedMachine:
    return RecordedMachine(Recording(recorded(tmp_path / "a", FACTS, looks())))


def test_what_is_read_is_what_was_recorded(machine: RecordedMachine) -> None:
    made = looks().found
    assert machine.ram() == made["ram"] and machine.files() == made["files"]
    assert machine.slab()._replace(vmalloc=None) == made["slab"]._replace(vmalloc=None)
    assert machine.map().found.largest_free == Piece(41, 2)
    table = machine.cgroups(dying=True)
    assert table.keepers == made["cgroups"].keepers
    assert table.groups.path == made["cgroups"].groups.path
    assert table.groups.memcg.tolist() == made["cgroups"].groups.memcg.tolist()
    assert machine.cgroups(dying=False).keepers == ()


def test_what_people_call_a_cgroup_is_recorded(tmp_path: Path, machine: RecordedMachine) -> None:
    assert machine.names(["/app", "/new.slice"])["/app"] == WEB
    assert machine.names(["/new.slice"])["/new.slice"].kind == "slice"  # its path says so
    ran = pagewalk_here("cgroups", tmp_path / "a")
    assert ran.code == 0 and "app = container web" in ran.out
    assert "container web" in pagewalk_here("ram", tmp_path / "a", "--files").out


def test_a_map_needs_physical_addresses(tmp_path: Path) -> None:
    path = recorded(tmp_path / "b", FACTS, looks(), physical=False)
    with pytest.raises(BadTarget, match="without --physical"):
        RecordedMachine(Recording(path)).map()


@pytest.mark.parametrize("command", ["ram", "cgroups"])
@pytest.mark.parametrize("option", [("--watch", "1"), ("--source", "kcore")])
def test_what_only_a_live_machine_has_is_refused(
    command: str, option: tuple[str, str], tmp_path: Path
) -> None:
    ran = pagewalk_here(command, recorded(tmp_path / "a", FACTS, looks()), *option)
    assert ran.code == 2 and f"{option[0]} is about what is live" in ran.err
    ran = pagewalk_here(command, tmp_path / "none")
    assert ran.code == 1 and "no such file" in ran.err


def test_what_could_not_be_looked_at_says_why(tmp_path: Path) -> None:
    some = Looks({"ram": by_hand.ram(), "names": Names({})}, {"files": "not visible; run as root"})
    machine = RecordedMachine(Recording(recorded(tmp_path / "b", FACTS, some)))
    with pytest.raises(BadTarget, match="page cache by file: not visible; run as root"):
        machine.files()
    with pytest.raises(BadTarget, match="all cgroups: record it with --ram"):
        machine.cgroups(dying=False)


def damaged(value: Any, rng: random.Random) -> Any:
    """Return a document with one of its values replaced by another."""
    if isinstance(value, dict):
        shape = [rng.choice((0, 1, 7))] * len(value["shape"])
        return value | {"data": base64.b64encode(rng.randbytes(56)).decode(), "shape": shape}
    if not isinstance(value, list) or not value:
        return rng.choice((0, -1, 1 << 63, 1 << 70, None, "", "/", [], 0.5, True))
    at = rng.randrange(len(value))
    return [*value[:at], damaged(value[at], rng), *value[at + 1 :]]


def test_a_document_that_was_made_to_do_harm_is_a_sentence(tmp_path: Path) -> None:
    rng = random.Random(7)
    made, path = looks(), str(tmp_path / "a")
    made.found["cgroup /app"] = GroupLook(by_hand.group(path="/app"), WEB)
    texts = {name: json.loads(to_text(one)) for name, one in made.found.items()}
    views = {"ram": ("ram",), "files": ("ram", "--files"), "slab": ("ram", "--slab"),
             "map": ("ram", "--map"), "cgroups": ("cgroups", "--dying"), "names": ("cgroups",),
             "cgroup /app": ("explain",)}
    refused = 0
    for _ in range(60):
        name = rng.choice([*views])
        with whole_file(path) as out:
            writer = Writer(out)
            for one, text in {**texts, name: damaged(texts[name], rng)}.items():
                writer.add("document", {"name": [one], "text": [json.dumps(text)]})
            writer.close(META, FACTS)
        words = views[name]
        for form in ("text", "json"):
            ran = pagewalk_here(words[0], path, *words[1:], "--format", form)
            assert ran.code in (0, 1, 3, 4), ran.err
            refused += ran.code == 1
    assert 0 < refused < 120


def test_one_cgroup_of_several(tmp_path: Path) -> None:
    path = str(tmp_path / "groups")
    hidden = Hidden(physical=False, scrub=False)
    with whole_file(path) as out:
        writer = Writer(out)
        for one in ("/a.slice/db", "/web"):
            add_look(writer, GroupLook(by_hand.group(path=one), WEB if one == "/web" else
                                       Name("", "db")), hidden)
        writer.close(META, FACTS)
    machine = RecordedMachine(Recording(path))
    for word, meant in (("/web", "/web"), ("web", "/web"), ("db", "/a.slice/db")):
        assert one_group(machine, word).group.path == meant
    assert to_text(one_group(machine, "web").group) == to_text(by_hand.group(path="/web"))
    for word, why in (("", "2 cgroups; name one as FILE:/PATH"), ("no", "no cgroup of")):
        with pytest.raises(BadTarget, match=why):
            one_group(machine, word)
    assert '"/web"' in pagewalk_here("explain", f"{path}:/web", "--format", "json").out
    assert "cgroups" in pagewalk_here("explain", path).err
    for option in ("--watch", "--source"):
        ran = pagewalk_here("explain", f"{path}:/web", option, "1")
        assert ran.code != 0 and "leave it out" in ran.err
