"""A list of films on a web server, curated by two workers: who is asked, how, and what is left of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_sources
from curation.corpus.store import Store
from pipelines.cli import main

SECRET = "hunter2canary"


class Films(ThreadingHTTPServer):
    """Serves the files of a folder; `/moved/` redirects to a signed address, as stores do."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.busy = self.most_at_once = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Films

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.asked.append(path)
            self.server.busy += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.busy)
        time.sleep(0.2)  # long enough for two workers to meet, if they may
        with self.server.lock:
            self.server.busy -= 1  # before the answer, for the next request comes with its end
        self.answer(path)

    def answer(self, path: str) -> None:
        file = self.server.folder / path.removeprefix("/").removeprefix("moved/")
        if path == "/robots.txt":
            body, status = b"User-agent: *\nDisallow: /private/\n", 200
        elif path.startswith("/moved/") and "Signature" not in self.path:
            self.send_response(307)
            self.send_header("Location", f"{path}?X-Amz-Signature={SECRET}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        else:
            status = 200 if file.is_file() else 404
            body = file.read_bytes() if file.is_file() else b""
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def films(small_media: Path) -> Iterator[Films]:
    server = Films(small_media)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_films_of_a_web_server_are_read_as_it_asks_and_no_secret_is_left(
    films, small_media, tmp_path, capfd
):
    base = f"http://127.0.0.1:{films.server_port}"
    # Each film once: the same bytes twice would be look-alikes.
    addresses = {
        f"{base}/wide-0.mp4": "none",
        f"{base}/moved/wide-1.mp4": "none",
        f"{base}/wide-2.mp4": "none",
        f"{base}/picture-0.jpg": "none",
        f"{base}/private/wide-3.mp4": "robots",
        f"{base}/gone.mp4": None,
        f"http://169.254.169.254:{films.server_port}/wide-0.mp4": None,
        f"http://me:{SECRET}@127.0.0.1/wide-0.mp4": None,
        f"https://films.example/wide-0.mp4?token={SECRET}": None,
    }
    (tmp_path / "list.jsonl").write_text(
        "\n".join(json.dumps({"uri": uri, "caption": "a film"}) for uri in addresses)
    )
    manners = ["--web.private-hosts", f"127.0.0.1:{films.server_port}", "--web.delay-s", "0"]
    manners += ["--web.requests-per-host", "1"]
    out = tmp_path / "corpus"
    command = ["curate", str(tmp_path / "list.jsonl"), "--out", str(out), "--preset", "tiny"]
    assert main([*command, *manners]) == 3  # some reasons may pass
    said = capfd.readouterr()

    probe = _sources(out)
    by_uri = {row["uri"]: row for row in probe}
    for uri, opt_out in addresses.items():
        if SECRET not in uri:
            assert by_uri[uri]["opt_out"] == opt_out
    reasons = sorted(row["source_reject"] for row in probe if row["source_reject"])
    assert reasons == ["bad_address", "bad_address", "not_found", "opted_out", "private_address"]
    assert by_uri[f"{base}/moved/wide-1.mp4"]["served_from"] == f"{base}/moved/wide-1.mp4"
    assert "/private/wide-3.mp4" not in films.asked
    assert films.most_at_once == 1  # two workers, one turn

    names = ("wide-0.mp4", "wide-1.mp4", "wide-2.mp4", "picture-0.jpg")
    read = {row["source_sha256"] for row in probe if not row["source_reject"]}
    assert read == {sha256((small_media / name).read_bytes()).hexdigest() for name in names}

    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything
    assert SECRET not in said.out + said.err


def test_an_export_asks_again_and_honours_what_is_said_now(films, tmp_path, capfd):
    base = f"http://127.0.0.1:{films.server_port}"
    manners = ["--web.private-hosts", f"127.0.0.1:{films.server_port}", "--web.delay-s", "0"]
    corpus = str(tmp_path / "corpus")
    command = ["curate", f"{base}/wide-0.mp4", "--out", corpus, "--preset", "tiny", *manners]
    assert main([*command, "--until", "select"]) == 0
    films.headers["X-Robots-Tag"] = "noai"
    assert main(["export", corpus, "--preset", "tiny", *manners]) == 3
    assert "opted_out" in capfd.readouterr().out
    again = ["--retry-failed", "--web.no-honour-opt-outs"]
    assert main(["export", corpus, "--preset", "tiny", *manners, *again]) == 0


def _sources(corpus: Path) -> list[dict[str, str]]:
    info = read_corpus(Store(str(corpus)))
    columns = ["uri", "source_sha256", "source_reject", "opt_out", "served_from"]
    tables = [
        read_sources(Store(str(corpus)), info.layers, part, columns)
        for part in range(info.num_parts)
    ]
    return [row for table in tables for row in table.to_pylist()]
