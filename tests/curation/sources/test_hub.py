"""The Hub's own filesystem against a server on loopback that speaks what it asks for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

FILM = bytes(range(256)) * 100
TOKEN = "hf_canary"
SCRIPT = """
import json, sys
from pathlib import Path
from curation.errors import LavieError
from curation.sources import fetched, list_sources
out = []
for spec in sys.argv[2:]:
    try:
        for uri in list_sources([spec])["uri"].to_pylist():
            with fetched(uri, max_bytes=10**6, scratch=Path(sys.argv[1]), outage_s=0.1) as source:
                out.append([uri, source.size_bytes, source.sha256])
    except LavieError as error:
        out.append([type(error).__name__, str(error)])
print(json.dumps(out))
"""


class Hub(ThreadingHTTPServer):
    """Files of the dataset org/name, and the status of those that it will not give."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"films/a.mp4": FILM, "films/b.mp4": FILM[::-1], "readme.md": b"# films"}
        self.refused: dict[str, int] = {}
        self.tokens: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if "/org/name" in path:
            self.server.tokens.add(self.headers.get("Authorization"))
        if path.startswith("/api/datasets/org/name"):
            self.answer_api(path)
        elif path.startswith("/datasets/org/name/resolve/main/"):
            self.answer_file(path.split("/resolve/main/")[1])
        else:
            self.send(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def answer_api(self, path: str) -> None:
        if "/tree/" not in path:
            info = {"id": "org/name", "sha": "2" * 40, "siblings": [], "tags": []}
            self.send(200, json.dumps(info).encode())
            return
        folder, is_recursive = (
            path.partition("/tree/main")[2].strip("/"),
            "=true" in self.path.lower(),
        )
        names = [name for name in self.server.files if name.startswith(folder)]
        entries = [
            {"type": "file", "path": n, "size": len(self.server.files[n]), "oid": "0" * 40}
            for n in names
            if is_recursive or "/" not in n[len(folder) :].strip("/")
        ]
        if not folder and not is_recursive:
            entries.append({"type": "directory", "path": "films", "oid": "1" * 40})
        self.send(200, json.dumps(entries).encode())

    def answer_file(self, name: str) -> None:
        if name in self.server.refused:
            self.send(self.server.refused[name], b"no")
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        self.send(206, self.server.files[name][int(first) : int(last) + 1])

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def read(hub: Hub, scratch: Path, *specs: str) -> tuple[list[list[object]], str]:
    """What `SCRIPT` reads, in a process whose environment names the hub; and all that it says."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(scratch), *specs],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(scratch / "home"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stdout + done.stderr


def test_files_of_a_repository_are_listed_and_read_with_the_token_of_the_run(hub, tmp_path):
    rows, said = read(
        hub, tmp_path, "hf://datasets/org/name/films", "hf://datasets/org/name/*/b.mp4"
    )
    a, b = (hashlib.sha256(data).hexdigest() for data in (FILM, FILM[::-1]))
    assert rows == [
        ["hf://datasets/org/name/films/a.mp4", len(FILM), a],
        ["hf://datasets/org/name/films/b.mp4", len(FILM), b],
        ["hf://datasets/org/name/films/b.mp4", len(FILM), b],
    ]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in said


def test_what_the_hub_refuses_is_told_apart(hub, tmp_path):
    hub.refused = {"films/a.mp4": 403}
    script_specs = [
        *("hf://datasets/org/name/films/a.mp4", "hf://datasets/org/name/films/gone.mp4"),
        "hf://datasets/org/other/a.mp4",
    ]
    rows, said = read(hub, tmp_path, *script_specs)
    assert rows[0] == ["BadSource", "unreadable: HTTP status 403"]
    assert all(kind == "NothingToDo" for kind, _ in rows[1:])
    assert TOKEN not in said
