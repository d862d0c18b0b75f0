"""The NUMA node of an address, in a tree of plain files and on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.proc.memory_blocks import ROOT, node_of


@pytest.mark.parametrize(("phys", "node"), [
    (0, 0), ((1 << 27) - 1, 0), (1 << 27, 3), (2 << 27, None), (3 << 27, None),
    (4 << 27, None)])
def test_an_address_is_on_the_node_of_its_block(
    phys: int, node: int | None, tmp_path: Path
) -> None:
    (tmp_path / "block_size_bytes").write_text("8000000\n")
    for block, name in ((0, "node0"), (1, "node3"), (2, "state"), (4, "node0"), (4, "node1")):
        (tmp_path / f"memory{block}" / name).mkdir(parents=True)
    assert node_of(phys, str(tmp_path)) == node


@pytest.mark.parametrize("size", ["", "0", "x"])
def test_without_blocks_nothing_is_told(size: str, tmp_path: Path) -> None:
    assert node_of(0, str(tmp_path)) is None
    (tmp_path / "block_size_bytes").write_text(size)
    assert node_of(0, str(tmp_path)) is None


def test_this_machine_has_its_first_frame_on_a_node() -> None:
    told = list(Path(ROOT).glob("memory0/node*"))
    assert node_of(0) == (int(told[0].name[4:]) if told else None)
