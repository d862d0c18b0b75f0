"""What Spark says becomes a sentence, what we do wrong does not, and its JVM ends.

A cluster is in tests/live/test_fleet.py.
"""

from __future__ import annotations

import io
import subprocess

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException

from pagewalk.history import spark
from pagewalk.model.errors import BadRequest, PagewalkError

JAVA = """An error occurred while calling o40.parquet.
: org.apache.hadoop.fs.UnsupportedFileSystemException: No FileSystem for scheme "s3a"
\tat org.apache.hadoop.fs.FileSystem.getFileSystemClass(FileSystem.java:3443)
"""
LOG = b"""26/11/27 11:59:09 WARN StandaloneAppClient$ClientEndpoint: Failed to connect to master
26/11/27 12:00:08 ERROR StandaloneSchedulerBackend: Application has been killed. Reason: no master
26/11/27 12:00:10 WARN StandaloneAppClient$ClientEndpoint: Drop UnregisterApplication(null)
"""


@pytest.mark.parametrize(("error", "words"), [
    (Py4JError(JAVA), 'UnsupportedFileSystemException: No FileSystem for scheme "s3a"'),
    (AnalysisException("[PATH_NOT_FOUND] Path does not exist: /x\nJVM stacktrace:\n..."),
     "[PATH_NOT_FOUND] Path does not exist: /x"),
    (Py4JError(""), "Py4JError"),
])
def test_what_spark_says_is_a_line(error: Exception, words: str) -> None:
    with pytest.raises(PagewalkError) as found, spark.sentence():
        raise error
    assert str(found.value).startswith("Spark cannot answer: ")
    assert str(found.value).endswith(words)


@pytest.mark.parametrize("error", [TypeError("x"), AttributeError("y"), KeyboardInterrupt()])
def test_a_mistake_of_ours_stays_one(error: BaseException) -> None:
    with pytest.raises(type(error)), spark.sentence():
        raise error


def test_why_there_is_no_session_is_what_the_jvm_noted() -> None:
    said = spark.refused("spark://h:1", Py4JError(JAVA), io.BytesIO(LOG))
    assert str(said) == ("cannot use Spark at spark://h:1: Application has been killed."
                         " Reason: no master")
    assert "No FileSystem" in str(spark.refused("local", Py4JError(JAVA), io.BytesIO(b"")))


def test_an_engine_that_is_none_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadRequest, match="neither duckdb nor"), spark.connected("somewhere:7077"):
        pass


@pytest.mark.parametrize("words", ["exec sleep 600", "sleep 600", "trap '' TERM; exec cat"])
def test_what_was_started_has_ended(words: str) -> None:
    process = subprocess.Popen(["sh", "-c", words], stdin=subprocess.PIPE, process_group=0)
    spark.end(process)
    assert process.returncode is not None


def test_the_data_set_is_where_sparks_file_systems_have_it() -> None:
    assert spark.place("/a/b") == "file:///a/b"
    assert spark.place("s3://bucket/x/?region=y") == "s3a://bucket/x"
