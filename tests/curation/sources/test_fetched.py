"""Faults around a source: which are its own passing fate, which the machine's, which the store's."""

from __future__ import annotations

import os
import resource
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from curation.errors import LASTING, PASSING, BadSource, MachineFault, StoreUnavailable
from curation.sources import fetched


def fetch(uri: str, scratch: Path) -> bytes:
    with fetched(uri, max_bytes=10**9, scratch=scratch, outage_s=0.1) as source:
        return source.path.read_bytes()


def test_a_scratch_disk_that_is_full_is_no_fault_of_the_source(s3_bucket, small_disk):
    filesystem, path = pafs.FileSystem.from_uri(f"{s3_bucket}/large.mp4")
    with filesystem.open_output_stream(path) as stream:
        stream.write(os.urandom(200_000))
    with pytest.raises(MachineFault, match=f"to {small_disk}: .*No space left .*; free some space"):
        fetch(f"{s3_bucket}/large.mp4", small_disk)
    assert not list(small_disk.iterdir())


def test_a_machine_without_a_descriptor_left_is_no_fault_of_the_source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"12345")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        while True:  # the last free numbers below the limit
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(MachineFault, match="Too many open files"):
            fetch(str(tmp_path / "a.mp4"), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.fixture
def answers(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """A store that answers each path with the status given for it, 200 by default."""
    statuses: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            path = urllib.parse.urlsplit(self.path).path.strip("/")
            self.send_response(statuses.get(path, statuses.get("*", 200)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = answer

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield statuses
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_a_store_that_answers_503_to_all_stops_the_run_with_what_to_do(answers, tmp_path):
    answers["*"] = 503
    with pytest.raises(StoreUnavailable, match=r"HTTP status 503.*run the same command again"):
        fetch("s3://bucket/a.mp4", tmp_path)


@pytest.mark.parametrize(
    ("status", "reason"),
    [pytest.param(503, "unreadable", marks=pytest.mark.slow), (403, "unreadable")],
)
def test_one_object_that_is_refused_by_a_store_that_answers_is_a_passing_reject(
    answers, tmp_path, status, reason
):
    answers["bucket/a.mp4"] = status
    with pytest.raises(BadSource) as caught:
        fetch("s3://bucket/a.mp4", tmp_path)
    assert caught.value.reason == reason
    assert reason in PASSING


def test_no_reason_is_both_passing_and_lasting():
    assert not PASSING.keys() & LASTING.keys()
