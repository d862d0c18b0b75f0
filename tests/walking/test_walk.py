"""A walk: changes in mid-walk are noticed, and descriptors are closed whatever happens."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pagewalk.model.columns import Pages, State, Sums
from pagewalk.model.errors import BadRequest
from pagewalk.walking.walk import walk
from tests.targets import asleep


def test_a_vma_that_appears_in_mid_walk_makes_the_walk_partial() -> None:
    walked = walk(os.getpid(), source="procfs", frames=False)
    with mmap.mmap(-1, 1 << 20, prot=mmap.PROT_READ):
        list(walked)
    (why,) = walked.outcome.partial
    assert re.match(r"the process changed during the walk: [1-9]\d* mappings?; totals mix", why)
    assert walked.outcome.done


def test_an_abandoned_walk_closes_its_descriptors() -> None:
    before = os.listdir("/proc/self/fd")
    with walk(os.getpid(), source="procfs") as walked:
        next(iter(walked))
    assert os.listdir("/proc/self/fd") == before
    assert not walked.outcome.done
    for _ in walk(os.getpid(), source="procfs"):
        break
    assert os.listdir("/proc/self/fd") == before


def test_a_walk_that_is_never_consumed_closes_its_descriptors_and_warns() -> None:
    with walk(os.getpid()):  # from here on a source has what it keeps for the next process
        pass
    before = os.listdir("/proc/self/fd")
    for want in (Pages, Sums):
        with pytest.warns(ResourceWarning, match="never consumed"):
            walk(os.getpid(), want)
    assert os.listdir("/proc/self/fd") == before


def test_a_walk_closes_its_descriptors_once() -> None:
    walked = walk(os.getpid())
    for _ in walked:
        pass
    # By now these have the descriptor numbers that the walk closed.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    try:
        with pytest.raises(BadRequest, match="once"):
            iter(walked)
        del walked
        for fd in others:
            os.fstat(fd)
    finally:
        for fd in others:
            os.close(fd)


def test_a_closed_walk_reads_nothing_more() -> None:
    walked = walk(os.getpid(), source="procfs")
    rows = iter(walked)
    next(rows)
    walked.close()
    with pytest.raises(BadRequest, match="closed before its end"):
        next(rows)
    late = walk(os.getpid(), source="procfs")
    rows = iter(late)
    late.close()
    with pytest.raises(BadRequest, match="closed before its end"):
        next(rows)


def test_an_iterator_that_was_never_advanced_warns() -> None:
    with pytest.warns(ResourceWarning, match="never consumed"):
        iter(walk(os.getpid(), source="procfs"))


def test_a_walk_of_anything_else_is_refused_and_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BadRequest, match="returns Pages or Sums, not <class 'dict'>"):
        walk(os.getpid(), dict, source="procfs")  # type: ignore[call-overload]
    with pytest.raises(BadRequest, match=r"array u64\[k, 2\], not list"):
        walk(os.getpid(), source="procfs", ranges=[(0, 4096)])  # type: ignore[call-overload]
    with pytest.raises(BadRequest, match="u64"):
        walk(os.getpid(), source="procfs", ranges=np.zeros((1, 2), np.int64))  # type: ignore[call-overload]
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def sleeper() -> Iterator[int]:
    """Yield the pid of a process that stands still."""
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL) as process:
        asleep(process.pid, "sleep")
        yield process.pid
        process.kill()


@pytest.mark.parametrize("want", [Pages, Sums])
def test_duckdb_reads_a_walk(want: type[Pages] | type[Sums], sleeper: int) -> None:
    walked = walk(sleeper, want, holes=True)
    rows = duckdb.sql("select state, cast(sum(size) as bigint) from walked group by state")
    found, said = dict(rows.fetchall()), Counter[str]()
    assert walked.outcome.done
    for row in walk(sleeper, want, holes=True):
        columns = row.amounts if isinstance(row, Sums) else row
        for state in State:
            said[state.label] += int(columns.size[columns.state == state.value].sum())
    assert found == {label: size for label, size in said.items() if size}


def test_a_stream_is_the_walk_and_comes_once(sleeper: int) -> None:
    walked = walk(sleeper)
    before = pa.RecordBatchReader.from_stream(walked)
    with pytest.raises(BadRequest, match="once"):
        pa.table(walked)
    assert before.read_next_batch().num_rows > 0


def test_what_ends_a_walk_ends_its_stream(sleeper: int) -> None:
    walked = walk(sleeper)
    reader = pa.RecordBatchReader.from_stream(walked)
    os.kill(sleeper, 9)
    os.waitpid(sleeper, 0)
    with pytest.raises(Exception, match=f"process {sleeper}"):
        reader.read_all()
