"""Fuzz every parser: python -m tests.fuzz [--inputs N] [PARSER...].

An input is a sample that was cut, spliced and changed, or is random. A parser may return, or raise
one of our own errors; any other exception, or more than PATIENCE_S of CPU time, is a fault. The
seed of a run repeats it; the first input of each fault is printed in hex.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.btf import Btf
from pagewalk.model.errors import BadText, NotInBtf, PagewalkError
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Era
from tests import samples
from tests.heap.test_buildinfo import elf, info
from tests.heap.test_hotspot import TOLD
from tests.heap.test_hotspot import data as performance_data
from tests.proc.test_engines import DOCKER, RUNC, written
from tests.proc.test_podman import bolt_pods, database

PATIENCE_S = 5.0
MEMORY = 2 << 30  # bytes that a parser may use in addition to what the program has


class Parser(NamedTuple):
    """A parser to fuzz: ``parse`` gets mutations of each of ``samples``."""

    samples: tuple[bytes, ...]
    parse: Callable[[bytes], object]


# What breaks parsers of text: characters that look like blanks or line ends, extreme numbers.
ODD = [bytes([byte]) for byte in b"\n\r\x0b\x0c\x1c\x85\xff\0\t :,-+_~()0"]
ODD += [b"  ", b" - ", b" kB", b"\\012", b"\xe2\x80\xa8", b"\xc2\xb2", b"-1", b"0x", b"1_0"]
ODD += [b"9" * 20, b"9" * 5000, b"18446744073709551615", b"ffffffffffffffff", b"10000000000000000"]
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 62, 1 << 63]
EDGES += [(1 << 63) - 1, (1 << 64) - 1, (1 << 64) - 4096]


def change(sample: bytes, others: tuple[bytes, ...], rng: random.Random) -> bytes:
    """Return ``sample`` after a few changes."""
    data = sample
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(CHANGES)(data, rng.choice(others), rng)
    return data


def places(data: bytes, rng: random.Random) -> tuple[int, int]:
    first, last = sorted(rng.randint(0, len(data)) for _ in range(2))
    return first, min(last, first + rng.choice((1, 8, 80, len(data))))


def cut(data: bytes, _: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def drop(data: bytes, _: bytes, rng: random.Random) -> bytes:
    first, last = places(data, rng)
    return data[:first] + data[last:]


def repeat(data: bytes, _: bytes, rng: random.Random) -> bytes:
    first, last = places(data, rng)
    return data[:last] + data[first:last] * rng.choice((1, 2, 50)) + data[last:]


def flip(data: bytes, _: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def insert(data: bytes, _: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(ODD) + data[at:]


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    first, last = places(other, rng)
    at = rng.randint(0, len(data))
    return data[:at] + other[first:last] + data[at:]


def renumber(data: bytes, _: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"[0-9a-f]+", data[:4096]))
    if not found:
        return data
    of = rng.choice(found)
    return data[: of.start()] + rng.choice(ODD) + data[of.end() :]


def swap_lines(data: bytes, _: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def overwrite(data: bytes, _: bytes, rng: random.Random) -> bytes:
    # Replaces a whole word of a binary format with an extreme value.
    size = rng.choice((2, 4, 8))
    at = rng.randint(0, max(0, len(data) - size)) // size * size
    word = rng.choice(EDGES) % (1 << 8 * size)
    return data[:at] + word.to_bytes(size, "little") + data[at + size :]


CHANGES = (cut, drop, repeat, flip, flip, insert, insert, splice, renumber, renumber, swap_lines,
           overwrite, overwrite)


def parse_maps(data: bytes) -> object:
    from pagewalk.proc.maps import parse_maps
    from pagewalk.translate.address import known_as

    vmas = parse_maps(data, {0xFE << 32: "ext4"})
    assert (vmas.start < vmas.end).all() and (vmas.start[1:] >= vmas.end[:-1]).all()
    return [known_as(name) for name in vmas.name]


def parse_smaps(data: bytes) -> object:
    # Many blocks are parsed together: the result must be that of parsing line by line.
    from pagewalk.proc.smaps import by_line, parse_smaps

    smaps, slowly = parse_smaps(data), by_line(data)
    assert smaps.start.tolist() == slowly.start.tolist()
    assert smaps.end.tolist() == slowly.end.tolist()
    assert all((column >= 0).all() for column in smaps.columns.values())
    assert {name: column.tolist() for name, column in smaps.columns.items() if column.any()} == {
        name: column.tolist() for name, column in slowly.columns.items() if column.any()
    }
    assert [smaps.codes[at] for at in smaps.which] == [slowly.codes[at] for at in slowly.which]
    return smaps.flagged("lo")


def parse_status(data: bytes) -> object:
    from pagewalk.proc.counters import in_bytes
    from pagewalk.proc.files import numbers

    for key, base in ((b"Tgid", 10), (b"Uid", 10), (b"CapEff", 16), (b"Seccomp", 10)):
        numbers(data, key, base)
    return in_bytes(data)


def parse_stat(data: bytes) -> object:
    from pagewalk.proc.target import parse_stat

    return parse_stat(data)


def parse_statm(data: bytes) -> object:
    from pagewalk.proc.counters import parse_statm

    return parse_statm(data)


def parse_mounts(data: bytes) -> object:
    from pagewalk.proc.maps import parse_mountinfo

    return parse_mountinfo(data)


def parse_swaps(data: bytes) -> object:
    from pagewalk.proc.swap import parse_swaps

    return parse_swaps(data)


def parse_zones(data: bytes) -> object:
    from pagewalk.proc.zones import memory_of, parse_zones

    return memory_of(parse_zones(data))


def parse_meminfo(data: bytes) -> object:
    from pagewalk.proc.meminfo import parse_meminfo

    return parse_meminfo(data)


def parse_vmstat(data: bytes) -> object:
    from pagewalk.proc.vmstat import parse_vmstat

    return parse_vmstat(data)


def parse_slabinfo(data: bytes) -> object:
    from pagewalk.proc.slabinfo import parse_slabinfo

    return [cache.most for cache in parse_slabinfo(data)]


def parse_kallsyms(data: bytes) -> object:
    import numpy as np

    from pagewalk.proc.kallsyms import names_at, parse_kallsyms

    addresses = np.array([0, 1 << 40, 0xFFFF_FFFF_8100_0010], np.uint64)
    return names_at(parse_kallsyms(data), addresses)


def parse_bufinfo(data: bytes) -> object:
    from pagewalk.proc.dma_buffers import parse_bufinfo

    return parse_bufinfo(data)


def parse_member(text: bytes) -> None:
    from pagewalk.history.glance import parse_member

    parse_member(1, text)


def parse_kills(text: bytes) -> None:
    from pagewalk.proc.kmsg import Record, parse_kills

    parse_kills([Record(0, line) for line in text.split(b"\n")], {})


def parse_membership(data: bytes) -> object:
    from pagewalk.proc.cgroups import parse_membership

    return parse_membership(data, 1), parse_membership(data, 2)


def parse_group_numbers(data: bytes) -> object:
    from pagewalk.proc.cgroup_numbers import parse_amount, parse_counts, parse_pressure
    from pagewalk.proc.cgroups import parse_pids

    asked = [lambda: parse_amount(data, "memory.max", none=True), lambda: parse_pressure(data)]
    asked += [lambda: parse_counts(data, "memory.stat"), lambda: parse_pids(data)]
    return [answer(ask) for ask in asked]


def parse_config(data: bytes) -> object:
    from pagewalk.proc.kernel import parse_config

    return parse_config(data)


def find_symbol(data: bytes) -> object:
    from pagewalk.kernel.open import find_symbol

    return find_symbol(data, "init_task")


def decode_words(data: bytes) -> object:
    # Arbitrary words of pagemap, and of kpageflags and kpagecount for their frames.
    from pagewalk.model.columns import Backing
    from pagewalk.model.states import classify
    from pagewalk.proc.pagemap import flags_of

    words = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
    backing = (words % np.uint64(len(Backing))).astype(np.uint8)
    flags = flags_of(words)
    return classify(flags, backing, words[::-1]), classify(flags, backing, None)


def ask_btf(data: bytes) -> object:
    from pagewalk.kernel.structs.page_layout import page_layout

    btf = Btf(data)
    asked = [lambda: page_layout(btf), lambda: btf.types]
    asked += [lambda name=name: btf.size(name) for name in samples.TYPES]
    asked += [lambda member=member: btf.member(*member) for member in samples.MEMBERS]
    asked += [lambda name=name: btf.enumerators(name) for name in samples.ENUMS]
    asked += [lambda: btf.enumerator("NAMELESS"), lambda: btf.function_id("outer")]
    return [answer(ask) for ask in asked]


def answer(ask: Callable[[], object]) -> object:
    # "Missing" and "refused" are answers too; the next question may have another.
    try:
        return ask()
    except (NotInBtf, PagewalkError):
        return None


def read_core(data: bytes) -> object:
    from pagewalk.kernel.readers.kcore import KcoreMemory
    from pagewalk.kernel.readers.memory import read_words

    fd = core_file()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    with closing(KcoreMemory(f"/proc/self/fd/{fd}")) as memory:
        edges = memory.segments
        asked = np.concatenate([edges.start, edges.end - np.uint64(8), edges.place])
        return read_words(memory, asked), memory.vmcoreinfo


@cache
def core_file() -> int:
    return os.memfd_create("core")


ERA = Era((6, 18), 40, max_pfn=0xFFFF, swap=SwapTypes.counted(1, 3, 3, 1))
PLACES = [0x1000 * (at + 1) for at in range(6)]  # six tables, each usable at any level


def walk_tables(data: bytes) -> object:
    # The input lays out six tables: a byte chooses table and slot, the next eight are the entry.
    from pagewalk.pagetables.walk import walk_tables
    from tests.memory import Memory
    from tests.swept import swept

    memory, tables = Memory(), [dict[int, int]() for _ in PLACES]
    for at in range(0, len(data) - 9, 10):
        slot = data[at + 1] * 2 if data[at] & 8 else data[at + 1] % 4
        tables[data[at] % 6][slot] = int.from_bytes(data[at + 2 : at + 10], "little")
    for place, entries in zip(PLACES, tables, strict=True):
        memory.table(place, entries)
    arch = ARCHES["x86_64"].on(4 + len(data) % 2, ERA)
    ranges = np.array([[0, arch.user_end]], np.uint64)
    found = list(walk_tables(arch, PLACES[0], memory.read_tables, ranges, retries=1))
    rows = (rows for part in found for rows in (part.leaves, part.holes, part.doubts))
    size = sum(int(row.size.sum()) for row in rows)
    found = swept(arch, PLACES[0], memory.read_tables, ranges, retries=1)
    assert size == found.size.total() == arch.user_end
    return found


def trace(data: bytes) -> object:
    # One address's way through the same tables.
    from pagewalk.pagetables.trace import trace
    from tests.memory import Memory

    memory = Memory()
    for at, place in enumerate(PLACES):
        words = np.frombuffer(data[at * 80 : at * 80 + 80].ljust(80, b"\0"), "<u8")
        memory.table(place, words.tolist())
    arch = ARCHES["x86_64"].on(4 + len(data) % 2, ERA)
    for slots in (0, 1, 9):
        addr = sum(slots << shift for shift in (12, 21, 30, 39))
        trace(arch, PLACES[0], memory.read_tables, addr)
    return None


@cache
def vmas() -> object:
    from pagewalk.proc.maps import parse_maps

    return parse_maps(samples.MAPS)


def parse_where(data: bytes) -> object:
    from pagewalk.walking.where import parse_where

    return parse_where(os.fsdecode(data))


def locate(data: bytes) -> object:
    from pagewalk.translate.address import check_canonical, holder_of, locate

    addr = locate(os.fsdecode(data), vmas())  # type: ignore[arg-type]
    check_canonical(addr, ARCHES["x86_64"].on(4, ERA))
    return holder_of(vmas(), addr)  # type: ignore[arg-type]


def parse_range(data: bytes) -> object:
    from pagewalk.commands.pages import within

    return within(vmas().ranges, os.fsdecode(data), 4096)  # type: ignore[attr-defined]


def parse_engines(data: bytes) -> object:
    # As the file of any engine, whose containers are then named.
    from pagewalk.proc import engines
    from pagewalk.proc.containers import Records
    from pagewalk.proc.podman import parse_bolt, parse_pods
    from pagewalk.system.containers import find_by_name, name_of

    parsers = {
        "state.json": engines.parse_runc, "status": engines.parse_crun,
        "config.v2.json": engines.parse_docker, "config.json": engines.parse_task,
        "containers.json": engines.parse_storage, "db.sql": parse_pods,
        "bolt_state.db": parse_bolt,
    }
    rows = []
    for file, parse in parsers.items():
        with suppress(ValueError):
            rows += parse({file: data, "init.pid": data[:9]}, ("default", "ab" * 32))
    if not rows:
        raise BadText("state", 1, data)
    known = Records(tuple(rows))
    name_of(os.fsdecode(data[-300:]), known)
    return [find_by_name(row.name, known) for row in rows], str(known).encode()


def find_pid(data: bytes) -> object:
    from pagewalk.proc.processes import NUMBER

    text = os.fsdecode(data)
    return int(text) if NUMBER.fullmatch(text) else None


def read_answers(data: bytes) -> object:
    # What a JVM may answer to each command.
    from pagewalk.heap.attach import Answers
    from pagewalk.heap.jvm import COMMANDS, parsed

    texts = dict.fromkeys(COMMANDS, data.decode(errors="replace"))
    anon = np.array([[0xFC000000, 0xFD000000]], np.uint64)
    return parsed(Answers(texts, started=False, took_ns=1, why=""), anon)


def read_buildinfo(data: bytes) -> object:
    from pagewalk.heap.buildinfo import go_version

    fd = core_file()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    return go_version(fd)


def read_performance_data(data: bytes) -> object:
    from pagewalk.heap.hotspot import attachable, parse, spaces

    told = parse(data)
    return spaces(told), attachable(told)


def written_states() -> list[bytes]:
    storage = [{"id": "ab" * 32, "names": ["web-1"], "metadata": '{"pod-name":"web-0"}'}]
    return [written(state) for state in (RUNC, DOCKER, storage)]


PARSERS = {
    "maps": Parser((samples.MAPS,), parse_maps),
    "smaps": Parser((samples.SMAPS, samples.ROLLUP, samples.MANY), parse_smaps),
    "status": Parser((samples.STATUS,), parse_status),
    "stat": Parser((samples.STAT,), parse_stat),
    "statm": Parser((samples.STATM,), parse_statm),
    "mountinfo": Parser((samples.MOUNTINFO,), parse_mounts),
    "swaps": Parser((samples.SWAPS,), parse_swaps),
    "zoneinfo": Parser((samples.ZONEINFO,), parse_zones),
    "meminfo": Parser((samples.MEMINFO,), parse_meminfo),
    "vmstat": Parser((samples.VMSTAT,), parse_vmstat),
    "slabinfo": Parser((samples.SLABINFO,), parse_slabinfo),
    "kallsyms (functions)": Parser((samples.KALLSYMS,), parse_kallsyms),
    "bufinfo": Parser((samples.BUFINFO,), parse_bufinfo),
    "cgroup": Parser((samples.MEMBERSHIP,), parse_membership),
    "member": Parser((samples.MEMBER,), parse_member),
    "kmsg": Parser((samples.KMSG,), parse_kills),
    "memory.*": Parser(
        (samples.MEMORY_STAT, samples.MEMORY_PRESSURE, b"max\n", b"1234\n5678\n"),
        parse_group_numbers,
    ),
    "config": Parser((samples.CONFIG, samples.CONFIG_GZ), parse_config),
    "kallsyms": Parser((samples.KALLSYMS,), find_symbol),
    "pagemap": Parser((samples.WORDS,), decode_words),
    "btf": Parser(samples.btf(), ask_btf),
    "kcore": Parser((samples.core_file(),), read_core),
    "tables": Parser(samples.tables(), walk_tables),
    "trace": Parser(samples.tables(), trace),
    "jvm": Parser((samples.JVM,), read_answers),
    "buildinfo": Parser((elf(info(b"go1.19.8")),), read_buildinfo),
    "hsperfdata": Parser((performance_data(*TOLD),), read_performance_data),
    "engines": Parser((*written_states(), database(("cd" * 32, "shop")), bolt_pods()),
                      parse_engines),
    "where": Parser(samples.WHERE, parse_where),
    "address": Parser(samples.ADDRESSES, locate),
    "range": Parser(samples.RANGES, parse_range),
    "target": Parser((b"1234", b"+1", b"bash"), find_pid),
}


class TooLong(Exception):
    """Raised in a parser that does not end."""


@dataclass
class Fed:
    """The outcome: how many inputs, how many of them accepted (``taken``), every fault once."""

    inputs: int = 0
    taken: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def limited() -> Iterator[None]:
    """Raise TooLong in the block after PATIENCE_S of CPU time."""

    def late(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def feed(name: str, inputs: int, seed: int) -> Fed:
    """Feed parser ``name`` that many inputs, the same ones for the same ``seed``."""
    parser, rng, fed = PARSERS[name], random.Random(f"{seed} {name}"), Fed()
    for _ in range(inputs):
        data = change(rng.choice(parser.samples), parser.samples, rng)
        fed.inputs += 1
        try:
            with limited():
                parser.parse(data)
            fed.taken += 1
        except PagewalkError:
            continue
        except Exception as error:
            # Two inputs that reach the same innermost line of ours have the same fault.
            lines = traceback.extract_tb(error.__traceback__)
            here = next((f for f in reversed(lines) if "pagewalk" in f.filename), lines[-1])
            fault = f"{type(error).__name__} at {Path(here.filename).name}:{here.lineno}"
            fed.faults[fault] += 1
            fed.first.setdefault(fault, data)
    return fed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="number for each parser")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("parsers", nargs="*", default=[], metavar="PARSER", help=", ".join(PARSERS))
    args = parser.parse_args()
    # No input may exhaust the machine's memory: MemoryError is a fault like any other.
    size = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    print(f"seed {args.seed}\n{'parser':10} {'inputs':>8} {'taken':>8} {'faults':>7} {'s':>6}")
    total = 0
    for name in args.parsers or PARSERS:
        began = time.monotonic()
        fed = feed(name, args.inputs, args.seed)
        faults = sum(fed.faults.values())
        took = time.monotonic() - began
        print(f"{name:10} {fed.inputs:8} {fed.taken:8} {faults:7} {took:6.0f}", flush=True)
        for fault, count in fed.faults.most_common():
            print(f"  {count} x {fault}: {fed.first[fault][:400].hex()}")
        total += faults
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
