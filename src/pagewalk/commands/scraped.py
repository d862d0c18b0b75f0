"""Metrics as Prometheus reads them: as text, and from a server. Only here is its client imported.

The client is an optional extra, imported only when asked for.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any

from pagewalk.model.errors import PackageMissing, PagewalkError
from pagewalk.proc.refusals import listening
from pagewalk.render.metrics import METRICS, SERVED, Family

MOST = 16  # connections at a time
PATIENCE = 10.0  # seconds that a client may be silent
PATH = "/metrics"
# What there is besides, for people and for probes. Neither begins a walk.
PAGES = {"/": f"pagewalk export: metrics are at {PATH}\n", "/healthz": "ok\n"}
Look = Callable[[], Iterable[Family]]


def client() -> Any:
    """Return the module prometheus_client; raises PackageMissing."""
    try:
        import prometheus_client
    except ImportError:
        raise PackageMissing("export", "prometheus-client") from None
    return prometheus_client


class Answers:
    """A collector of the client's: what ``look`` returns, asked for at each scrape."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def describe(self) -> list[Any]:
        """Return nothing: otherwise the client would collect once to know the names."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield all metrics in the client's form; raises what ``look`` raises."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        known = METRICS | SERVED
        for one in self._look():
            kind = CounterMetricFamily if one.name.endswith("_total") else GaugeMetricFamily
            family = kind(one.name, known[one.name].says, labels=known[one.name].labels)
            for labels, value in one.values.items():
                family.add_metric(labels, value)
            yield family


def registry_of(look: Look, *, ourselves: bool = False) -> Any:
    """Return a registry of the client's with ``look``, and with ``ourselves`` process_*."""
    ours = client().CollectorRegistry()
    ours.register(Answers(look))
    if ourselves:
        client().ProcessCollector(registry=ours)
    return ours


def as_text(look: Look) -> str:
    """Return the metrics in Prometheus's text format; raises PackageMissing."""
    written: bytes = client().generate_latest(registry_of(look))
    return written.decode()


class Server(HTTPServer):
    """A server at an address, with a thread for each of at most MOST connections."""

    request_queue_size = MOST

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = BoundedSemaphore(MOST)
        with listening(host, port):
            super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind as any server does: HTTPServer would ask a name server for our name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or hang up if there are enough of them."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        Thread(target=self._answer, args=(request, client_address), daemon=True).start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            with suppress(OSError):  # the client has gone, or was silent for too long
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            self._places.release()


def handler(look: Look) -> type[BaseHTTPRequestHandler]:
    """Return what answers requests with what ``look`` returns; raises PackageMissing."""
    registry = registry_of(look, ourselves=True)
    from prometheus_client.exposition import choose_encoder

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version, sys_version = "pagewalk", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in PAGES:
                self.answer(HTTPStatus.OK, PAGES[path].encode())
            elif path != PATH:
                self.answer(HTTPStatus.NOT_FOUND, f"there is only {PATH} here\n".encode())
            else:
                self.metrics()

        def metrics(self) -> None:
            encoder, kind = choose_encoder(self.headers.get("Accept", ""))
            try:
                written = encoder(registry)
            except (PagewalkError, OSError, MemoryError) as error:
                self.answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(errors="replace"))
            else:
                self.answer(HTTPStatus.OK, written, kind)

        def answer(
            self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a scrape every few seconds is no news."""

    return Handler
