"""Kernel memory by name: what is not an object of a cache, on the screen and in JSON."""

from __future__ import annotations

import csv
import io
import json

from pagewalk.kernel.bpf_maps import BpfMap
from pagewalk.render import view
from pagewalk.render.kernel_table import NAMED
from pagewalk.system.kernel_memory import KernelMemory
from tests.kernel_by_hand import KERNEL, KNOWN, SLABS, WEB


def wrote(format_name: str, found: KernelMemory = KERNEL) -> str:
    out = io.StringIO()
    view(format_name, "slab")(found, found.slabs.caches, out, known=KNOWN)
    return out.getvalue()


def test_who_asked_is_named_and_devices_take_no_ram() -> None:
    lines = [line.split() for line in wrote("text").splitlines()]
    assert ["2048", "htab_map_alloc", "vmalloc", "3"] in lines
    assert ["144", "not", "told", "stack", "9"] in lines
    assert not any("ioremap" in line for line in lines)
    assert ["2048", "conns", "7"] in lines
    assert ["1024", "udmabuf", "surface", "41"] in lines


def test_the_rest_adds_up() -> None:
    many = tuple(BpfMap(at, f"map{at}", 1, 4096 * (40 - at)) for at in range(NAMED + 3))
    text = wrote("text", KERNEL._replace(maps=many))
    rest = 4 * sum(40 - at for at in range(NAMED, NAMED + 3))
    assert f"{rest}  3 others" in text and f"map{NAMED}" not in text


def test_what_is_not_known_is_said() -> None:
    text = wrote("text", KERNEL._replace(vmalloc=None, maps=None, buffers=()))
    assert "MAPPED BY" not in text and "BPF MAP" not in text and "DMA BUFFER" not in text
    assert "partial: who asked for kernel memory, by name: hidden" in text
    document = json.loads(wrote("json", KERNEL._replace(vmalloc=None, maps=None)))
    assert (document["vmalloc"], document["bpf_maps"]) == (None, None)


def test_json_has_bytes_and_both_names_of_a_group() -> None:
    document = json.loads(wrote("json"))
    assert document["vmalloc"] == [
        {"caller": "htab_map_alloc", "use": "vmalloc", "areas": 3, "bytes": 512 * 4096},
        {"caller": None, "use": "stack", "areas": 9, "bytes": 36 * 4096},
    ]
    assert document["bpf_maps"][1] == {"id": 8, "name": "", "kind": 2, "bytes": None}
    assert document["dma_buffers"][0]["bytes"] == 1 << 20
    charged = document["caches"][1]["charged"]
    assert [(one["group"], one["name"]) for one in charged] == [(WEB, "container web")]
    assert "264 container web" in wrote("text")


def test_csv_is_a_line_for_each_cache() -> None:
    rows = list(csv.DictReader(io.StringIO(wrote("csv"))))
    assert [row["name"] for row in rows] == [cache.name for cache in SLABS.caches]
    assert [row["reclaimable"] for row in rows] == ["1", "0"]


