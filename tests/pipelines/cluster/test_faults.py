"""Machines, a head, a store and a source that go in mid-run: each ends in the bytes of a calm run.

What else ends so has its tests beside: workers, drivers, SIGINT (`test_whole_way`), full disks and suspects
(`test_suspects`, `test_tries`), decoders that hang or take memory (`tests/curation/media`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from ray.cluster_utils import Cluster

from curation.corpus import layout

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FILMS = ("tall-0", "tall-1", "wide-0", "wide-1", "wide-2", "wide-3")
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def films(small_media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name in FILMS:
        (folder / f"{name}.mp4").write_bytes((small_media / f"{name}.mp4").read_bytes())
    return folder


def command(sources: str, out: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines", "curate", sources, "--out", out, "--preset", "tiny"),
        *("--export.x264-preset", "ultrafast", *more),
    ]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes], log: Path, code: int = 0) -> str:
    try:
        ended = process.wait(PATIENCE_S)
    finally:
        process.kill()
    said = log.read_text()
    assert ended == code, said
    return said


def run(words: list[str], log: Path, code: int = 0) -> str:
    return finish(start(words, log), log, code)


QUOTING = ("index.html", "statistics.json")
"""Files of a report that quote the command, which differs from run to run here."""


def contents(corpus: Path) -> dict[str, Any]:
    """Every file of a corpus but those that quote the command; of corpus.json all but that."""
    found: dict[str, Any] = {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in corpus.rglob("*")
        if path.is_file() and path.name not in (layout.LOCK, *QUOTING)
    }
    info = json.loads(found[layout.CORPUS])
    found[layout.CORPUS] = {n: v for n, v in info.items() if n not in ("created_by", "digest")}
    return found


def wait_for_parts(corpus: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while len(list(corpus.glob("layers/scenes@*/part-*.parquet"))) < number:
        assert process.poll() is None, "the run ended before anything could go wrong"
        assert time.monotonic() < end, "no part came"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def calm(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The corpus of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    run(command(str(films), str(folder / "c")), folder / "log")
    return contents(folder / "c")


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """Clusters with a head that does no work and machines of one core each."""
    made: list[Cluster] = []

    def make(num_nodes: int) -> Cluster:
        made.append(Cluster(initialize_head=True, head_node_args={"num_cpus": 0}))
        for _ in range(num_nodes):
            made[-1].add_node(num_cpus=1, memory=64 * 1024**3)
        return made[-1]

    yield make
    for cluster in made:
        cluster.shutdown()


def test_a_machine_that_is_killed_in_mid_run(films, calm, make_cluster, tmp_path):
    cluster = make_cluster(2)
    corpus, log = tmp_path / "c", tmp_path / "log"
    process = start(command(str(films), str(corpus), "--ray-address", cluster.address), log)
    wait_for_parts(corpus, 1, process)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    finish(process, log)
    assert contents(corpus) == calm


def test_a_head_that_is_killed_ends_the_run_and_the_next_one_goes_on(
    films, calm, make_cluster, tmp_path
):
    cluster = make_cluster(1)
    corpus, log = tmp_path / "c", tmp_path / "log"
    process = start(command(str(films), str(corpus), "--ray-address", cluster.address), log)
    wait_for_parts(corpus, 1, process)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    process.wait(PATIENCE_S)
    assert process.returncode != 0
    run(command(str(films), str(corpus)), tmp_path / "again")
    assert contents(corpus) == calm


def test_a_source_that_vanishes_after_it_was_listed_and_comes_back(films, calm, tmp_path):
    corpus, log = tmp_path / "c", tmp_path / "log"
    process = start(command(str(films), str(corpus)), log)
    wait_for_parts(corpus, 1, process)
    last = films / f"{FILMS[-1]}.mp4"
    last.rename(last.with_suffix(".away"))
    try:
        said = finish(process, log, code=3)
    finally:
        last.with_suffix(".away").rename(last)
    assert "not_found" in said
    run(command(str(films), str(corpus), "--retry-failed"), tmp_path / "again")
    again = contents(corpus)
    assert {n: again[n] for n in again if n.startswith("layers/") and "committed" not in n} == {
        n: calm[n] for n in calm if n.startswith("layers/") and "committed" not in n
    }


class Forwarder(ThreadingHTTPServer):
    """Stands before a store, and answers 503 to all while it is down."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.behind = behind
        self.is_down = False
        self.num_refused = 0


class Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Forwarder

    def forward(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.is_down:
            self.server.num_refused += 1
            self.answer(503, {}, b"")
            return
        request = urllib.request.Request(
            self.server.behind + self.path, data=data or None, method=self.command
        )
        for name, value in self.headers.items():
            if name.lower() not in ("content-length", "connection", "expect"):
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                self.answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, dict(error.headers), error.read())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", str(len(body)))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_store_of_sources_that_is_down_for_a_while_costs_no_source(
    films, s3_bucket, s3_endpoint, tmp_path, monkeypatch
):
    filesystem, root = pafs.FileSystem.from_uri(s3_bucket)
    for film in sorted(films.glob("*.mp4")):
        with filesystem.open_output_stream(f"{root}/{film.name}") as stream:
            stream.write(film.read_bytes())
    run(command(s3_bucket, str(tmp_path / "calm")), tmp_path / "calm-log")
    store = Forwarder(s3_endpoint)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server_port}")
    corpus, log = tmp_path / "c", tmp_path / "log"
    process = start(command(s3_bucket, str(corpus)), log)
    wait_for_parts(corpus, 1, process)
    store.is_down = True
    time.sleep(20)
    store.is_down = False
    finish(process, log)
    store.shutdown()
    store.server_close()
    assert store.num_refused
    assert contents(corpus) == contents(tmp_path / "calm")
