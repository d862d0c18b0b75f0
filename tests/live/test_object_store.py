"""A data set in a real object store: written, listed and read, and gone when it is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from pagewalk.snapshot.places import recordings_in
from tests.live.command import pagewalk
from tests.targets import start

pytestmark = pytest.mark.live

KEY, SECRET = "key", "not-to-be-shown"
PATIENCE = 120.0  # for a hang: it takes some seconds
PORTS = 8  # that the server listens on


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on.

    The server derives another from each, 10 000 above it.
    """
    found: list[int] = []
    for port in range(21_000, 31_000):
        with socket.socket() as one, socket.socket() as above:
            try:
                one.bind(("127.0.0.1", port))
                above.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a bucket in SeaweedFS, started for this module."""
    folder = tmp_path_factory.mktemp("store")
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{
        "name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"]}]}))
    s3, master, volume, filer = free_ports(4)
    server = subprocess.Popen(
        [Path(sys.executable).with_name("weed"), "server", f"-dir={folder}", "-ip=127.0.0.1",
         "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}", f"-s3.port={s3}",
         f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
         "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )
    try:
        wait_for(s3, server)
        yield f"s3://{KEY}:{SECRET}@bucket/fleet?endpoint_override=127.0.0.1:{s3}&scheme=http" \
              "&allow_bucket_creation=true"
    finally:
        server.kill()
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers requests, if only with a refusal."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            return
        except HTTPError:
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the object store did not start: {server.poll()}")


def test_a_series_is_in_the_store_and_is_read_from_there(store: str) -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk("record", running.pid, "--every", "10ms", "--for", "1s", "-o", store)
        assert ran.code == 0, ran.err
        assert SECRET not in ran.out and "s3://bucket/fleet/host=" in ran.out
        local = pagewalk("show", running.pid, "--format", "json").json["totals"]
    found = recordings_in(store)
    assert {one.host for one in found} == {socket.gethostname()}
    assert len(found) == ran.out.count("recorded in")
    shown = pagewalk("show", found[0].path, "--format", "json")
    assert shown.code == 0, shown.err
    assert shown.json["totals"]["anon"] == local["anon"]
    rows = pagewalk("query", store, "select host, anon from processes", "--format", "json")
    assert rows.code == 0, rows.err
    assert rows.json["rows"] == [{"host": socket.gethostname(), "anon": local["anon"]}] * len(found)
    assert SECRET not in rows.out + rows.err


def test_what_is_not_there_is_a_sentence(store: str) -> None:
    path = store.replace("/fleet?", "/none/snapshot.parquet?")
    ran = pagewalk("show", path)
    assert ran.code == 1 and len(ran.err.splitlines()) == 1 and "recording" in ran.err
    assert SECRET not in ran.err


def test_a_store_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with start("plain", stopped=True) as running:
        ran = pagewalk(
            "record", running.pid, "-o",
            f"s3://a:b@bucket/x.parquet?endpoint_override=127.0.0.1:{port}&scheme=http",
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"})
    assert ran.code == 1 and len(ran.err.splitlines()) == 1, ran.err
