"""A server that takes requests and answers late: who waits for it is told."""

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curation.corpus import waiting
from curation.corpus.store import Store
from curation.errors import NothingToDo
from curation.sources import list_sources


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is said about waiting; the server answers once something was."""
    lines: list[str] = []
    is_told = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            is_told.wait(20)
            self.send_error(403)

        do_GET = do_HEAD = _answer

        def log_message(self, *arguments: object) -> None:
            pass

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            is_told.set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(waiting, "FIRST_S", 0.2)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    listener = Listener()
    waiting.logger.addHandler(listener)
    yield lines
    waiting.logger.removeHandler(listener)
    is_told.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_listing_that_is_not_answered_says_whom_it_waits_for(told):
    with pytest.raises(NothingToDo, match="cannot list 's3://bucket/films'"):
        list_sources(["s3://bucket/films"])
    assert told[0].startswith("waiting for s3://bucket/films to answer, ")


def test_a_corpus_in_a_store_that_does_not_answer_says_so_without_its_key(told):
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        Store("s3://user:word@bucket/corpus").read("corpus.json")
    assert told[0].startswith("waiting for s3://bucket/corpus/corpus.json to answer, ")


def test_what_is_answered_at_once_is_not_spoken_of(caplog, tmp_path):
    with caplog.at_level(logging.WARNING), waiting.waiting("a store"):
        Store(str(tmp_path)).write("a", b"a")
    assert not caplog.records
