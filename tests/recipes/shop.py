"""A preforked web service: the parent loads the data, its workers answer (kill -TTIN: one more).

With the word freeze it calls gc.freeze() before it forks.
"""

import gc
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

PRICES = {f"item-{n}": {"id": n, "tags": [n % 7, n % 11]} for n in range(100_000)}


class Shop(BaseHTTPRequestHandler):
    """Answers /item-N, and /gc with the pid of the worker that has collected garbage."""

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path == "/gc":
            gc.collect()
            answer = os.getpid()
        else:
            answer = PRICES.get(self.path[1:])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Write no log."""


def one_more(*_: object) -> None:
    """Fork a worker."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTTIN, signal.SIG_DFL)
        server.serve_forever()
    workers.append(pid)


server, workers = HTTPServer(("127.0.0.1", 0), Shop), []
signal.signal(signal.SIGTTIN, one_more)
if "freeze" in sys.argv:
    gc.freeze()
for _ in range(4):
    one_more()
print(json.dumps({"WORKER": workers[0], "PORT": server.server_port}), flush=True)
while True:
    signal.pause()
