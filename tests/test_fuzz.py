"""A short run of the fuzzer on every parser; CONTRIBUTING has the command for a long one."""

from __future__ import annotations

import pytest

from pagewalk.model.errors import BadText, PagewalkError
from pagewalk.proc.cgroup_numbers import parse_pressure
from pagewalk.proc.counters import in_bytes, parse_statm
from pagewalk.proc.dma_buffers import parse_bufinfo
from pagewalk.proc.kernel import parse_config
from pagewalk.proc.maps import parse_maps
from pagewalk.proc.meminfo import parse_meminfo
from pagewalk.proc.mounts import parse_mounts
from pagewalk.proc.slabinfo import parse_slabinfo
from pagewalk.proc.smaps import parse_smaps
from pagewalk.proc.swap import parse_swaps
from pagewalk.proc.target import parse_stat
from pagewalk.proc.vmstat import parse_vmstat
from pagewalk.proc.zones import parse_zones
from tests import fuzz, samples

# About a second each.
INPUTS = {"tables": 100, "trace": 800, "smaps": 1000}


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_a_valid_input_is_accepted(name: str) -> None:
    parser = fuzz.PARSERS[name]
    for sample in parser.samples:
        parser.parse(sample)


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_no_input_raises_any_error_except_ours(name: str) -> None:
    fed = fuzz.feed(name, INPUTS.get(name, 2000), seed=0)
    assert {fault: fed.first[fault].hex() for fault in fed.faults} == {}
    assert fed.taken > 0


def endless(_: bytes) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("broken", "fault"),
    [(lambda data: data[1000], "IndexError"), (endless, "TooLong")],
    ids=["an error", "no end"],
)
def test_the_fuzzer_finds_a_broken_parser(
    monkeypatch: pytest.MonkeyPatch, broken: object, fault: str
) -> None:
    monkeypatch.setattr(fuzz, "PATIENCE_S", 0.2)
    monkeypatch.setattr(fuzz, "PARSERS", {"broken": fuzz.Parser((b"a b",), broken)})  # type: ignore[arg-type]
    (seen,) = fuzz.feed("broken", 1, seed=0).faults
    assert seen.startswith(f"{fault} at ")


def cuts(text: bytes) -> list[bytes]:
    """Return ``text`` truncated everywhere except at the end of a line."""
    return [text[:at] for at in range(1, len(text)) if text[at - 1 : at] != b"\n"]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_maps, samples.MAPS), (parse_smaps, samples.SMAPS), (parse_smaps, samples.ROLLUP),
        (in_bytes, samples.STATUS), (parse_stat, samples.STAT), (parse_statm, samples.STATM),
        (parse_mounts, samples.MOUNTINFO), (parse_swaps, samples.SWAPS),
        (parse_zones, samples.ZONEINFO), (parse_config, samples.CONFIG),
        (parse_meminfo, samples.MEMINFO), (parse_vmstat, samples.VMSTAT),
        (parse_pressure, samples.MEMORY_PRESSURE), (parse_slabinfo, samples.SLABINFO),
        (parse_bufinfo, samples.BUFINFO),
    ],
    ids=lambda of: getattr(of, "__name__", ""),
)
def test_text_truncated_inside_a_line_is_never_accepted(parse: object, text: bytes) -> None:
    for part in cuts(text):
        with pytest.raises(BadText):
            parse(part)  # type: ignore[operator]


def test_smaps_truncated_after_any_line_has_no_value_from_another_block() -> None:
    whole = parse_smaps(samples.MANY)
    for at, byte in enumerate(samples.MANY):
        if byte != ord("\n"):
            continue
        try:
            part = parse_smaps(samples.MANY[: at + 1])
        except PagewalkError:
            continue
        count = len(part.start)
        assert part.start.tolist() == whole.start[:count].tolist()
        for name, column in part.columns.items():
            # The last block may lack lines; those it has must be its own.
            assert column[:-1].tolist() == whole.columns[name][: count - 1].tolist()
            assert column[-1] in (0, whole.columns[name][count - 1])
