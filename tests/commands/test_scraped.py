"""Metrics as the client writes them, and a server that any client may talk to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from threading import Event, Thread

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as as_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pagewalk.commands import scraped
from pagewalk.commands.scraped import MOST, Look, Server, as_text, handler
from pagewalk.model.errors import NotPermitted, PagewalkError
from pagewalk.render.metrics import Family

ODD = 'a "b" \\ c'  # what a name is after printable(): it may have quotes and backslashes


def look() -> list[Family]:
    return [Family("pagewalk_program_uss_bytes", {(ODD,): 4096, ("b",): 2**60}),
            Family("pagewalk_walks_total", {(): 3}), Family("pagewalk_ram_bytes", {})]


@contextmanager
def served(look: Look) -> Iterator[int]:
    """Serve what ``look`` returns until the block ends; yields the port."""
    with Server("127.0.0.1", 0, handler(look)) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def samples(text: str) -> dict[tuple[str, str], float]:
    return {(one.name, one.labels.get("program", "")): one.value
            for family in text_string_to_metric_families(text) for one in family.samples}


def test_the_text_says_what_was_found() -> None:
    found = samples(as_text(look))
    assert found["pagewalk_program_uss_bytes", ODD] == 4096
    assert found["pagewalk_program_uss_bytes", "b"] == 2**60
    assert found["pagewalk_walks_total", ""] == 3
    assert not any(name == "pagewalk_ram_bytes" for name, _ in found)


def test_the_server_says_the_same_in_the_format_that_is_asked_for() -> None:
    with served(look) as port:
        answer, text = get(port)
        assert (answer.status, samples(text)["pagewalk_program_uss_bytes", ODD]) == (200, 4096)
        assert samples(text)["process_open_fds", ""] > 0
        answer, text = get(port, Accept="application/openmetrics-text; version=1.0.0")
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        named = {family.name for family in as_openmetrics(text)}
        assert {"pagewalk_program_uss_bytes", "pagewalk_walks"} <= named


def test_pages_for_people_and_probes_look_at_nothing() -> None:
    def never() -> list[Family]:
        raise AssertionError

    with served(never) as port:
        assert "/metrics" in get(port, "/")[1]
        assert get(port, "/healthz")[1] == "ok\n"
        answer, text = get(port, "/nowhere")
        assert (answer.status, text) == (404, "there is only /metrics here\n")


def test_a_look_that_fails_is_a_sentence_and_no_metrics() -> None:
    def failing() -> list[Family]:
        raise PagewalkError("cannot look: the kernel says no")

    with served(failing) as port:
        answer, text = get(port)
        assert (answer.status, text) == (503, "cannot look: the kernel says no\n")


def test_more_clients_than_there_are_places_are_hung_up_on_and_the_others_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scraped, "PATIENCE", 60)
    with served(look) as port:
        silent = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(MOST)]
        late = socket.create_connection(("127.0.0.1", port), 60)
        late.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert until_closed(late) == b""
        for one in silent:
            one.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert until_closed(one).endswith(b"ok\n")
        for one in (*silent, late):
            one.close()
        assert get(port, "/healthz")[0].status == 200


def until_closed(connection: socket.socket) -> bytes:
    """Return all that the server says; nothing if it hung up before it was asked."""
    said = b""
    try:
        while part := connection.recv(4096):
            said += part
    except ConnectionResetError:
        return b""
    return said


def test_a_silent_client_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraped, "PATIENCE", 0.05)
    with served(look) as port, socket.create_connection(("127.0.0.1", port), 60) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("said", [
    b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n",
    b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
])
def test_nonsense_is_refused_and_the_server_goes_on(
    said: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(look) as port:
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall(said)
            assert b"Error" in until_closed(client)
        assert get(port, "/healthz")[0].status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_leaves_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    looking, go = Event(), Event()

    def slow() -> list[Family]:
        looking.set()
        assert go.wait(60)
        return [Family("pagewalk_program_uss_bytes",
                       {(f"{at}" * 50,): at for at in range(10_000)})]

    with served(slow) as port:
        client = socket.create_connection(("127.0.0.1", port), 60)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert looking.wait(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        client.close()
        go.set()
        assert get(port, "/healthz")[0].status == 200
    assert capfd.readouterr().err == ""


def test_what_cannot_be_listened_on_is_a_sentence() -> None:
    with (Server("127.0.0.1", 0, handler(look)) as first,
          pytest.raises(PagewalkError, match="address already in use; end what listens there")):
        Server("127.0.0.1", first.server_port, handler(look))
    # TEST-NET-1 (RFC 5737) is nobody's
    with pytest.raises(PagewalkError, match="choose an address of this machine"):
        Server("192.0.2.1", 0, handler(look))


def test_a_low_port_takes_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Server, "server_bind", refused)
    with pytest.raises(NotPermitted, match=r"CAP_NET_BIND_SERVICE.*choose one above 1023"):
        Server("127.0.0.1", 80, handler(look))
