"""The measures by name: each is a function that takes a Plan and returns rows.

To add one, write a function in a module of this folder, and name it in MEASURES.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measures.armed import armed
from benchmarks.measures.command import hello
from benchmarks.measures.dense import dense
from benchmarks.measures.diff import diffs
from benchmarks.measures.ebpf import (
    ebpf_churn,
    ebpf_dense,
    ebpf_frames,
    ebpf_open,
    ebpf_sparse,
    ebpf_stall,
)
from benchmarks.measures.everyone import everyone
from benchmarks.measures.export import export
from benchmarks.measures.fleet import fleet
from benchmarks.measures.frames import ram_frames, ram_stall
from benchmarks.measures.groups import groups
from benchmarks.measures.heap import heap
from benchmarks.measures.index import index
from benchmarks.measures.many import many
from benchmarks.measures.peak import peak
from benchmarks.measures.query import query
from benchmarks.measures.ram import cgroups, ram, ram_large
from benchmarks.measures.recorded import recorded
from benchmarks.measures.recording import recording
from benchmarks.measures.run import run
from benchmarks.measures.sets import crowds, sets
from benchmarks.measures.sparse import sparse
from benchmarks.measures.stall import stall
from benchmarks.measures.who import who
from benchmarks.rows import Plan, Row

MEASURES: dict[str, Callable[[Plan], list[Row]]] = {
    "dense": dense,
    "sparse": sparse,
    "hello": hello,
    "groups": groups,
    "many": many,
    "peak": peak,
    "stall": stall,
    "heap": heap,
    "everyone": everyone,
    "ebpf-dense": ebpf_dense,
    "ebpf-sparse": ebpf_sparse,
    "ebpf-open": ebpf_open,
    "ebpf-frames": ebpf_frames,
    "ebpf-stall": ebpf_stall,
    "ebpf-churn": ebpf_churn,
    "ram": ram,
    "ram-frames": ram_frames,
    "ram-stall": ram_stall,
    "ram-large": ram_large,
    "cgroups": cgroups,
    "sets": sets,
    "crowds": crowds,
    "who": who,
    "run": run,
    "index": index,
    "diff": diffs,
    "recording": recording,
    "armed": armed,
    "export": export,
    "fleet": fleet,
    "recorded": recorded,
    "query": query,
}
