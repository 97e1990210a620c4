"""A web server on loopback that answers each path as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from curation.sources import WebClient, WebConfig

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """What a server answers, and what it was asked."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request, names of headers in lower case."""
    most_at_once: int = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def page(self, path: str, body: bytes, *, status: int = 200, **headers: str) -> None:
        """Answer a path with a body; header names are spelled with '_' for '-'."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in ({"Content_Length": str(len(body))} | headers).items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer


@pytest.fixture
def site() -> Iterator[Site]:
    """A running server; what it has no answer for is 404."""
    busy, lock = [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path
            with lock:
                found.asked.append((path, {k.lower(): v for k, v in self.headers.items()}))
                busy[0] += 1
                found.most_at_once = max(found.most_at_once, busy[0])
            try:
                answer = found.answers.get(path)
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)
            except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
                self.close_connection = True
            finally:
                with lock:
                    busy[0] -= 1

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Site(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True, args=(0.05,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(site: Site) -> Callable[..., WebClient]:
    """A client that may ask the loopback server, without manners that take time."""

    def make(resolve: Any = None, **settings: Any) -> WebClient:
        allowed = {"private_hosts": (f"127.0.0.1:{site.port}",), "delay_s": 0.0, "patience_s": 0.0}
        config = WebConfig(**(allowed | settings))
        return WebClient(config) if resolve is None else WebClient(config, resolve=resolve)

    return make


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., bytes]:
    """Fetch a source with a client; returns its bytes."""

    def fetch(client: WebClient, uri: str, *, max_bytes: int = 10**7) -> bytes:
        with (tmp_path / "copy").open("w+b") as target:
            client.fetch(uri, target, max_bytes=max_bytes)
            target.seek(0)
            return target.read()

    return fetch
