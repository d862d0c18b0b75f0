"""SQL over a data set, by a Spark cluster that is already there: the only file that imports it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import IO, Any

from pagewalk.history.sql import Answer
from pagewalk.history.statements import views
from pagewalk.model.errors import BadRequest, PackageMissing, PagewalkError
from pagewalk.snapshot.places import NAME, is_url

MASTERS = ("spark://", "sc://", "local", "yarn", "k8s://")
CONFIG = {
    # host=001 stays text, and so does the time
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.files.ignoreCorruptFiles": "true",
    "spark.ui.showConsoleProgress": "false",
    # A file is a hundredth of its rows in memory: by its size Spark would send tables to all
    # workers that do not fit there. How large they are it knows when it has them.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.adaptive.autoBroadcastJoinThreshold": "10MB",
}
# As DuckDB has it: a timestamp of no time zone, which is UTC.
TIME = "to_timestamp_ntz(time, \"yyyy-MM-dd'T'HH-mm-ss.SSSSSS'Z'\")"
PATIENCE = 20.0  # seconds, for a JVM that was asked to end
CALLING = "An error occurred while calling"  # what py4j says before it says what
# What a JVM notes, and what it ends with.
REASON = re.compile(r'(?: ERROR \S+ |Exception in thread "main" \S+: )(.+)')


@contextmanager
def connected(engine: str) -> Iterator[Any]:
    """Yield a session of the cluster ``engine``; raises PackageMissing, PagewalkError.

    Nothing of it is left: the JVM that talks with the cluster for us has ended, however this ends.
    """
    here = not engine.startswith("sc://")  # whether a JVM of ours talks with the cluster
    with (spark(engine), tempfile.TemporaryFile() as log,
          gateways(log) if here else nullcontext()):
        session = None
        try:
            try:
                session = begin(engine)
            except known() as error:
                raise refused(engine, error, log) from None
            yield session
        finally:
            if session is not None:
                with suppress(*known(), OSError):  # it may be gone, as after a kill
                    session.stop()


def read(session: Any, root: str, paths: Sequence[str] = ()) -> None:
    """Make ``recordings`` the data set ``root``, or only ``paths`` of it, and the views over it.

    Raises PagewalkError.
    """
    from pyspark.sql import functions

    with sentence():
        base = place(root)
        chosen = [plain(place(path)) for path in paths] or [f"{plain(base)}/host=*/time=*/{NAME}"]
        rows = (session.read.option("mergeSchema", "true").option("basePath", base)
                .parquet(*chosen))
        rows.withColumn("time", functions.expr(TIME)).createOrReplaceTempView("recordings")
        for view in views():
            session.sql(view.sql).createOrReplaceTempView(view.name)


def ask(session: Any, sql: str) -> Answer:
    """Return the answer to ``sql``; raises PagewalkError."""
    with sentence():
        found = session.sql(sql)
        rows = [tuple(row) for row in found.collect()]
    return Answer(list(found.columns), iter(rows))


@contextmanager
def spark(engine: str) -> Iterator[None]:
    # Raises what can be said before anything is started; puts back what pyspark changes.
    if not engine.startswith(MASTERS):
        raise BadRequest(f"--engine '{engine}' is neither duckdb nor a Spark cluster:"
                         " spark://HOST:PORT, sc://HOST, yarn, k8s://... or local[N]")
    try:
        import pyspark  # noqa: F401
    except ImportError:
        raise PackageMissing("--engine spark", "pyspark") from None
    before = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it thinks of other packages' versions
        try:
            yield
        finally:
            # Its handler asks a session that has ended to cancel its work.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, before)


@contextmanager
def gateways(log: IO[bytes]) -> Iterator[None]:
    # A session that has stopped leaves its JVM, and one that Ctrl-C interrupts while the JVM starts
    # knows of none: what is started is noted here, and ended. What it says goes into ``log``.
    from pyspark import SparkContext, java_gateway

    started: list[subprocess.Popen[bytes]] = []
    module: Any = java_gateway
    original = module.Popen

    def noted(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        options |= {"stdout": log, "stderr": log, "process_group": 0}
        started.append(original(*words, **options))
        return started[-1]

    module.Popen = noted
    try:
        yield
    finally:
        module.Popen = original
        if started:
            if SparkContext._gateway is not None:
                with suppress(*known(), OSError):
                    SparkContext._gateway.shutdown()
            SparkContext._gateway = SparkContext._jvm = None  # the next session starts its own
        for process in started:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a JVM, or the shells that would start it, and wait for that."""
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()  # which ends it where no signal reaches it
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


def begin(engine: str) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("pagewalk fleet")
    for name, value in CONFIG.items():
        builder = builder.config(name, value)
    remote = engine.startswith("sc://")
    return (builder.remote(engine) if remote else builder.master(engine)).getOrCreate()


def place(root: str) -> str:
    """Return the data set as Spark's own file systems have it."""
    if not is_url(root):
        return f"file://{os.path.abspath(root)}"
    return root.partition("?")[0].replace("s3://", "s3a://", 1).rstrip("/")


def plain(path: str) -> str:
    """Return a path that Hadoop's globs take as it is (org.apache.hadoop.fs.GlobPattern)."""
    return re.sub(r"([][{}*?\\])", r"\\\1", path)


def known() -> tuple[type[Exception], ...]:
    """Return the errors that say what Spark says; any other is a mistake of ours."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return Py4JError, PySparkException


@contextmanager
def sentence() -> Iterator[None]:
    # Spark's errors are a page of Java; one line says what is wrong.
    try:
        yield
    except known() as error:
        raise PagewalkError(f"Spark cannot answer: {in_words(error)}") from None


def refused(engine: str, error: Exception, log: IO[bytes]) -> PagewalkError:
    """Return why there is no session: what the JVM noted last as an error, or else what it said."""
    log.seek(0)
    reasons = REASON.findall(log.read().decode(errors="replace"))
    why = reasons[-1] if reasons else in_words(error)
    return PagewalkError(f"cannot use Spark at {engine}: {why[:300]}")


def in_words(error: Exception) -> str:
    """Return the line of an error that says what is wrong."""
    lines = list(filter(None, (line.strip(" \t\r") for line in str(error).split("\n"))))
    lines = [line for line in lines if not line.startswith(CALLING)] or lines
    return lines[0].removeprefix(": ")[:300] if lines else type(error).__name__
