"""SQL over a data set, by a Spark cluster that is already there: the only file that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
}
# As DuckDB has it: a timestamp of no time zone, which is UTC.
TIME = "to_timestamp_ntz(time, \"yyyy-MM-dd'T'HH-mm-ss.SSSSSS'Z'\")"


@contextmanager
def connected(engine: str) -> Iterator[Any]:
    """Yield a session of the cluster ``engine``; raises PackageMissing, PagewalkError."""
    session = begin(engine)
    try:
        yield session
    finally:
        session.stop()


def read(session: Any, root: str) -> None:
    """Make ``recordings`` the data set ``root``, and the views over it; raises PagewalkError."""
    with sentence("Spark"):
        base = place(root)
        rows = (session.read.option("mergeSchema", "true").option("basePath", base)
                .parquet(f"{base}/host=*/time=*/{NAME}"))
        rows.withColumn("time", functions().expr(TIME)).createOrReplaceTempView("recordings")
        for view in views():
            session.sql(view.sql).createOrReplaceTempView(view.name)


def ask(session: Any, sql: str) -> Answer:
    """Return the answer to ``sql``; raises PagewalkError."""
    with sentence("Spark"):
        found = session.sql(sql)
        rows = [tuple(row) for row in found.collect()]
    return Answer(list(found.columns), iter(rows))


def begin(engine: str) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise PackageMissing("--engine spark", "pyspark", "spark") from None
    if not engine.startswith(MASTERS):
        raise BadRequest(f"--engine '{engine}' is neither duckdb nor a Spark cluster:"
                         " spark://HOST:PORT, sc://HOST, yarn, k8s://... or local[N]")
    builder = SparkSession.builder.appName("pagewalk fleet")
    for name, value in CONFIG.items():
        builder = builder.config(name, value)
    with sentence(engine):
        remote = engine.startswith("sc://")
        return (builder.remote(engine) if remote else builder.master(engine)).getOrCreate()


def functions() -> Any:
    from pyspark.sql import functions

    return functions


def place(root: str) -> str:
    """Return the data set as Spark's own file systems have it."""
    if not is_url(root):
        return f"file://{os.path.abspath(root)}"
    return root.partition("?")[0].replace("s3://", "s3a://", 1).rstrip("/")


@contextmanager
def sentence(engine: str) -> Iterator[None]:
    # Spark's errors are a page of Java; the first line says what is wrong.
    try:
        yield
    except (PagewalkError, KeyboardInterrupt):
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:300]
        raise PagewalkError(f"{engine} cannot answer: {said or type(error).__name__}") from None
