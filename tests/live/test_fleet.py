"""The same reports on a real Spark cluster, of a master and two workers: the same rows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pagewalk.history.fleet import DUCKDB, asking, hidden, look_at_fleet
from pagewalk.history.spark import ask, connected, read
from pagewalk.history.sql import Database
from pagewalk.history.statements import REPORTS, questions, report
from pagewalk.snapshot.relation import footers
from tests import left
from tests.history.fleet_by_hand import (
    EXPECTED,
    HIDDEN_BY,
    MIB,
    OF_TWO,
    at,
    many_hosts,
    newer,
    two_hosts,
    web,
)
from tests.live.command import begin as begin_pagewalk
from tests.live.command import one_sentence, pagewalk
from tests.snapshot.by_hand import PAGE
from tests.targets import start

pytestmark = pytest.mark.live

PATIENCE = 300.0  # for a hang
MASTER = "org.apache.spark.deploy.master.Master"
# The driver, too, listens on the loopback interface only.
LOOPBACK = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m", "PYSPARK_PYTHON": sys.executable}
# Few rows: 200 tasks for each step would take minutes.
SMALL = "spark.ui.enabled false\nspark.sql.shuffle.partitions 2\nspark.driver.memory 512m\n"
WORKER = "org.apache.spark.deploy.worker.Worker"


def begin(stack: ExitStack, folder: Path, name: str, *words: str) -> Path:
    """Start a part of the cluster until the stack is closed; return the file that it writes to."""
    import pyspark

    log = folder / f"{name}.log"
    out = stack.enter_context(log.open("w"))
    # spark-class execs java: its pid is the one to end
    process = subprocess.Popen(
        [Path(pyspark.__file__).parent / "bin/spark-class", *words], stdout=out,
        stderr=subprocess.STDOUT, cwd=folder)
    stack.callback(ended, process)
    return log


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def said(log: Path, pattern: str) -> re.Match[str]:
    """Wait until a part of the cluster has written ``pattern``."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := re.search(pattern, log.read_text()):
            return found
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a cluster that runs for this module."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "spark-defaults.conf").write_text(SMALL)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in LOOPBACK.items():
            patch.setenv(name, value)
        patch.setenv("SPARK_CONF_DIR", str(folder))
        log = begin(stack, folder, "master", MASTER, "--host", "127.0.0.1", "--port", "0",
                    "--webui-port", "0")
        address = said(log, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")[1]
        for number in (1, 2):
            one = begin(stack, folder, f"worker{number}", WORKER, "--host", "127.0.0.1",
                        "--webui-port", "0", "--cores", "1", "--memory", "1g",
                        "--work-dir", str(folder / f"work{number}"), address)
            said(one, "Successfully registered with master")
        yield address


def test_both_engines_say_what_was_made_and_the_same_of_what_was_recorded(
    cluster: str, tmp_path: Path
) -> None:
    made, real = many_hosts(tmp_path / "made"), str(tmp_path / "real")
    with start("fork_three", stopped=True) as running:
        ran = pagewalk("record", *running.pids, "--every", "100ms", "--for", "150ms", "-o", real)
        assert ran.code in (0, 3), ran.err
    by_duckdb = {name: here(real, name) for name in REPORTS}
    dark = two_hosts(tmp_path / "dark")
    with connected(cluster) as session:
        assert session.sparkContext.master == cluster
        for root, expected in ((made, EXPECTED), (real, by_duckdb), (dark, OF_TWO)):
            read(session, root)
            for name, rows in expected.items():
                assert list(ask(session, report(name).sql).rows) == rows, name
        assert hidden(partial(ask, session)) == HIDDEN_BY
        read(session, real)
        check_queries(session, real)
    assert by_duckdb["programs"] and by_duckdb["hosts"]
    assert not jvms()


def check_queries(session: Any, root: str) -> None:
    """Check that Spark answers the questions of `query`, from its views, as DuckDB does."""
    database = Database(footers([root]), 1 << 30, None)
    for one in questions():
        rows = list(database.ask(one.sql).rows)
        assert list(ask(session, one.sql).rows) == rows, one.name
        assert rows or one.name not in ("programs", "vmas", "sharing", "recordings"), one.name


def jvms() -> list[str]:
    """Return the JVMs that this process has started and that still exist, but for the cluster."""
    return [line for line in left.processes(os.environ[left.MARK]) if "SparkSubmit" in line]


def test_ctrl_c_while_the_jvm_starts_leaves_none(tmp_path: Path) -> None:
    process = begin_pagewalk("fleet", "hosts", many_hosts(tmp_path), "--engine", "local[1]",
                             start_new_session=True)
    end = time.monotonic() + PATIENCE
    while not jvms() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert not jvms()


def here(root: str, name: str) -> list[tuple[Any, ...]]:
    with asking(look_at_fleet(root), root, DUCKDB, 1 << 30) as ask:
        return list(ask(report(name).sql).rows)


def test_what_spark_refuses_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    ran = pagewalk("fleet", "hosts", many_hosts(tmp_path), "--engine", "yarn")
    assert ran.code == 1
    assert "cannot use Spark at yarn: When running with master" in one_sentence(ran)
    assert not jvms()


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    made = many_hosts(tmp_path)
    ran = pagewalk("fleet", "hosts", made, "--engine", "somewhere:7077")
    assert ran.code == 2 and "Spark cluster" in ran.err


def test_the_command_asks_the_cluster(cluster: str, tmp_path: Path) -> None:
    odd = tmp_path / "of all [hosts]{*}?"
    made = many_hosts(odd)
    ran = pagewalk("fleet", "limits", made, "--engine", cluster, "--format", "json")
    assert ran.code == 0, ran.err
    assert [tuple(row.values()) for row in ran.json["rows"]] == EXPECTED["limits"]
    # Spark could read it, and would make all numbers text.
    newer(at(odd, "e", 0, web(1, MIB, PAGE)))
    ran = pagewalk("fleet", "programs", made, "--engine", cluster, "--format", "json")
    [left_out] = ran.json["partial"]
    assert ran.code == 3 and left_out.startswith("left out: ") and "host=e" in left_out
    assert [tuple(row.values()) for row in ran.json["rows"]] == EXPECTED["programs"]
