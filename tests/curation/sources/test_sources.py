"""Sources: what is listed, in which order, and how the bytes come."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.corpus.schema import SOURCES, schema
from curation.errors import BadSource, LavieError, NothingToDo, UsageError
from curation.sources import LeftOut, fetched, list_sources, local_path, redacted

HOW_TO_FOLLOW = "followed only with --follow-links (and --link-roots, if it leads outside)"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with two films, a picture, a text, and one folder below."""
    folder = tmp_path / "films"
    (folder / "below").mkdir(parents=True)
    for name in ("b.mp4", "a.MKV", "below/c.jpg", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


def uris(*specs: str | Path) -> list[str]:
    return list_sources([str(spec) for spec in specs])["uri"].to_pylist()


def test_a_folder_gives_its_media_at_any_depth_sorted_with_sizes(films):
    table = list_sources([str(films)])
    assert table.schema.equals(schema(SOURCES), check_metadata=True)
    assert table["uri"].to_pylist() == [
        str(films / "a.MKV"),
        str(films / "b.mp4"),
        str(films / "below/c.jpg"),
    ]
    assert table["media"].to_pylist() == ["video", "video", "image"]
    assert table["size_bytes"].to_pylist() == [5, 5, 11]


def test_a_relative_spec_gives_absolute_uris(films, monkeypatch):
    monkeypatch.chdir(films.parent)
    assert uris("films/b.mp4") == [str(films / "b.mp4")]


def test_a_glob_takes_what_it_matches(films):
    assert uris(films / "*.mp4") == [str(films / "b.mp4")]
    assert uris(films / "**" / "*.jpg") == [str(films / "below/c.jpg")]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(films):
    (films / "take[1].mp4").write_bytes(b"x")
    assert uris(films / "take[1].mp4") == [str(films / "take[1].mp4")]


def test_what_several_specs_name_is_listed_once(films):
    assert len(uris(films, films / "b.mp4", films / "*")) == 3


@pytest.mark.parametrize("spec", ["nothing.mp4", "*.mp4", "empty", "nothing.csv"])
def test_a_spec_that_names_nothing_is_an_error_that_names_it(tmp_path, spec):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LavieError, match=spec.replace("*", r"\*")):
        list_sources([str(tmp_path / spec)])


def test_a_path_that_is_not_there_is_said_not_to_exist(tmp_path):
    with pytest.raises(UsageError, match=r"gone/a\.mp4' does not exist"):
        list_sources([str(tmp_path / "gone" / "a.mp4")])


@pytest.mark.parametrize("spec", ["az://host/a.mp4", "ftp://host/a.mp4"])
def test_stores_that_sources_cannot_lie_in_are_refused_by_name(spec):
    with pytest.raises(UsageError, match=f"sources: .*got '{spec}'"):
        list_sources([spec])


def test_a_folder_that_cannot_be_listed_is_named(films):
    if os.geteuid() == 0:
        pytest.skip("root may list every folder")
    (films / "below").chmod(0)
    with pytest.raises(UsageError, match=r"cannot list .*below: Permission denied"):
        list_sources([str(films)])


def test_where_the_name_says_nothing_the_content_decides(tmp_path, make_video):
    """Of files with foreign names, films and pictures are listed; the others are counted by kind."""
    film = make_video(tmp_path / "film.mp4", [("red", 12)])
    (tmp_path / "GOPR0001").write_bytes(film.read_bytes())
    (tmp_path / "take.MP4_").write_bytes(film.read_bytes())
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.dat", "PNG")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "song.bin").write_bytes(b"ID3" + b"\0" * 100)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    (tmp_path / "nothing.dat").touch()
    (tmp_path / "film.mp4.txt").write_bytes(film.read_bytes())  # a text by its name is not opened
    os.mkfifo(tmp_path / "pipe.dat")  # to open it would wait for ever
    left_out = LeftOut()
    table = list_sources([str(tmp_path)], left_out=left_out)
    names = [Path(uri).name for uri in table["uri"].to_pylist()]
    assert names == ["GOPR0001", "film.mp4", "photo.dat", "take.MP4_"]
    assert table["media"].to_pylist() == ["video", "video", "image", "video"]
    assert dict(left_out.counts) == {
        "playlist": 1,
        "audio": 1,
        "no video or image by content": 1,
        "empty": 1,
        "text": 1,
        "no regular file": 1,
    }
    assert any("x.heic" in line for line in left_out.lines())


def test_a_folder_without_media_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.mystery").write_text("b")
    with pytest.raises(NothingToDo, match=r"2 files \(1 no video or image by content: .*1 text"):
        list_sources([str(tmp_path)])


def test_a_corpus_among_the_footage_is_not_entered_and_none_is_footage(films):
    corpus = films / "corpus"
    (corpus / "layers").mkdir(parents=True)
    (corpus / "corpus.json").touch()
    (corpus / "a.mp4").touch()
    left_out = LeftOut()
    assert len(list_sources([str(films)], left_out=left_out)) == 3
    assert left_out.counts["folder that holds a corpus, not entered"] == 1
    with pytest.raises(UsageError, match="is a corpus"):
        list_sources([str(corpus)])


def test_links_are_followed_while_they_stay_under_the_given_folders(films, tmp_path):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "secret.mp4").write_bytes(b"secret")
    (outside / "deep" / "d.mp4").write_bytes(b"deep")
    (films / "link.mp4").symlink_to(outside / "secret.mp4")
    (films / "more").symlink_to(outside / "deep")
    (films / "below" / "up").symlink_to(films)  # a ring
    (films / "round.mp4").symlink_to("round.mp4")
    (films / "below" / "again.mp4").symlink_to(films / "b.mp4")

    def listed(**given):
        return [Path(uri).name for uri in list_sources([str(films)], **given)["uri"].to_pylist()]

    own = ["a.MKV", "b.mp4", "c.jpg"]
    left_out = LeftOut()
    assert sorted(listed(left_out=left_out)) == sorted([*own, "link.mp4", "round.mp4", "again.mp4"])
    assert left_out.counts[f"linked folder, {HOW_TO_FOLLOW}"] == 2
    assert sorted(listed(follow_links=True)) == sorted([*own, "link.mp4", "round.mp4"])
    wider = listed(follow_links=True, link_roots=[str(outside)])
    assert sorted(wider) == sorted([*own, "d.mp4", "secret.mp4", "round.mp4"])
    with (
        pytest.raises(BadSource, match="--follow-links"),
        fetched(str(films / "link.mp4"), max_bytes=10, scratch=tmp_path),
    ):
        pass


def test_objects_of_a_store_are_told_by_content_too(s3_bucket, make_video, tmp_path):
    film = make_video(tmp_path / "film.mp4", [("red", 12)]).read_bytes()
    for name, data in {
        "f/0001": film,
        "f/0002": b"no film",
        "f/a.txt": b"a",
        "f/b.mp4": b"b",
    }.items():
        put(s3_bucket, name, data)
    left_out = LeftOut()
    table = list_sources([f"{s3_bucket}/f"], left_out=left_out)
    assert table["uri"].to_pylist() == [f"{s3_bucket}/f/0001", f"{s3_bucket}/f/b.mp4"]
    assert dict(left_out.counts) == {"text": 1, "no video or image by content": 1}


def test_links_in_a_folder_stay_rows_and_linked_folders_are_not_entered(films, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(b"secret")
    (films / "link.mp4").symlink_to(outside / "secret.mp4")
    (films / "more").symlink_to(outside)
    left_out = LeftOut()
    table = list_sources([str(films)], left_out=left_out)
    assert str(films / "link.mp4") in table["uri"].to_pylist()
    assert not any("secret" in uri for uri in table["uri"].to_pylist())
    assert left_out.lines() == [
        f"1 linked folder, {HOW_TO_FOLLOW}: {films / 'more'}",
        f"1 text: {films / 'notes.txt'}",
    ]
    row = table["uri"].to_pylist().index(str(films / "link.mp4"))
    assert table["size_bytes"][row].as_py() is None


def test_a_link_given_by_the_user_is_followed(films, tmp_path):
    (tmp_path / "link.mp4").symlink_to(films / "b.mp4")
    assert uris(tmp_path / "link.mp4") == [str(films / "b.mp4")]


def test_a_name_that_is_not_utf_8_keeps_its_bytes(films):
    raw = os.fsencode(films) + b"/caf\xe9.mp4"
    with open(raw, "wb") as file:
        file.write(b"film")
    found = [uri for uri in uris(films) if uri.startswith("file://")]
    assert os.fsencode(local_path(found[0])) == raw
    with fetched(found[0], max_bytes=10, scratch=films) as source:
        assert source.file.read() == b"film"


LIST_ROWS = [
    {"uri": "b.mp4", "title": "null", "category": "Animation", "caption": "A bee, flying."},
    {"uri": "s3://bucket/x.mp4", "title": "", "category": "Travel", "caption": None},
    {"uri": "/gone.png", "title": "Gone", "category": None, "caption": "x"},
]


def write_list(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0])]
        lines += [",".join(json.dumps(v) if v else "" for v in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_list_gives_its_rows_with_their_columns(films, suffix):
    table = list_sources([str(write_list(films / f"list{suffix}", LIST_ROWS))])
    assert table.select(
        ["uri", "media", "title", "given_category", "given_caption"]
    ).to_pylist() == [
        {
            "uri": "/gone.png",
            "media": "image",
            "title": "Gone",
            "given_category": None,
            "given_caption": "x",
        },
        {
            "uri": str(films / "b.mp4"),
            "media": "video",
            "title": "null",
            "given_category": "Animation",
            "given_caption": "A bee, flying.",
        },
        {
            "uri": "s3://bucket/x.mp4",
            "media": "video",
            "title": None,
            "given_category": "Travel",
            "given_caption": None,
        },
    ]


def test_the_row_of_a_list_stays_where_a_folder_names_the_same_source(films):
    path = write_list(films / "list.csv", LIST_ROWS[:1])
    for specs in ([films, path], [path, films]):
        table = list_sources([str(spec) for spec in specs])
        row = table["uri"].to_pylist().index(str(films / "b.mp4"))
        assert table["title"][row].as_py() == "null"
        assert len(table) == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_that_are_not_known_are_left_out_and_named_once(films, caplog, suffix):
    path = write_list(films / f"list{suffix}", [{"uri": "b.mp4", "mood": "dark", "year": 1999}])
    with caplog.at_level(logging.WARNING):
        list_sources([str(path)])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: columns not used: mood, year"
    ]


def test_credentials_in_a_uri_are_refused_without_being_repeated(films):
    for uri in ("s3://KEY:hunter2@bucket/x", "s3://bucket/x?secret_key=hunter2"):
        with pytest.raises(UsageError, match="credentials") as caught:
            list_sources([uri])
        assert "hunter2" not in str(caught.value)
    assert redacted("GET s3://K:S@b/x?sig=1 failed") == "GET s3://b/x failed"


def test_two_hundred_thousand_rows_are_listed_in_a_second_or_two(tmp_path):
    names = pa.array([f"s3://bucket/{i * 7919 % 1_000_003:07d}.mp4" for i in range(200_000)])
    pq.write_table(pa.table({"uri": names}), tmp_path / "many.parquet")
    before = os.times()
    table = list_sources([str(tmp_path / "many.parquet")])
    after = os.times()
    assert table.num_rows == 200_000
    assert after.user + after.system - before.user - before.system < 4


def put(bucket: str, name: str, data: bytes) -> None:
    filesystem, path = pafs.FileSystem.from_uri(f"{bucket}/{name}")
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def test_a_prefix_of_an_object_store_is_a_source(s3_bucket, tmp_path):
    for name in ("films/b.mp4", "films/deep/a.webm", "films/notes.txt", "other/c.mp4"):
        put(s3_bucket, name, b"12345")
    expected = [f"{s3_bucket}/films/b.mp4", f"{s3_bucket}/films/deep/a.webm"]
    table = list_sources([f"{s3_bucket}/films"])
    assert table["uri"].to_pylist() == expected
    assert table["size_bytes"].to_pylist() == [5, 5]
    assert uris(f"{s3_bucket}/films/b.mp4") == expected[:1]
    assert uris(f"{s3_bucket}/*/*.mp4") == [expected[0], f"{s3_bucket}/other/c.mp4"]
    with pytest.raises(NothingToDo, match="none"):
        list_sources([f"{s3_bucket}/none"])


def test_a_list_in_an_object_store_names_its_neighbours(s3_bucket):
    put(s3_bucket, "set/list.csv", b"uri,title\nfilms/a.mp4,A\n")
    table = list_sources([f"{s3_bucket}/set/list.csv"])
    assert table["uri"].to_pylist() == [f"{s3_bucket}/set/films/a.mp4"]
    assert table["title"].to_pylist() == ["A"]


def test_a_remote_source_is_copied_hashed_and_removed(s3_bucket, tmp_path):
    data = os.urandom(9 * 1024**2)
    put(s3_bucket, "a.mp4", data)
    with fetched(f"{s3_bucket}/a.mp4", max_bytes=len(data), scratch=tmp_path) as source:
        assert source.path.read_bytes() == source.file.read() == data
        assert source.sha256 == hashlib.sha256(data).hexdigest()
        assert source.size_bytes == len(data)
    assert list(tmp_path.iterdir()) == []


def test_a_local_source_is_hashed_where_it_lies(films):
    with fetched(str(films / "b.mp4"), max_bytes=10, scratch=films) as source:
        assert source.path == films / "b.mp4"
        assert source.sha256 == hashlib.sha256(b"b.mp4").hexdigest()
        assert source.file.read() == b"b.mp4"


def reason(uri: str | Path, scratch: Path, *, max_bytes: int = 100) -> str:
    with (
        pytest.raises(BadSource) as caught,
        fetched(str(uri), max_bytes=max_bytes, scratch=scratch),
    ):
        pass
    assert list(scratch.iterdir()) == []
    return caught.value.reason


def test_a_list_knows_the_lengths_of_local_files_and_of_nothing_else(films, tmp_path):
    (films / "list.csv").write_text(
        "uri\nhere.mp4\nlater.mp4\ns3://store/b.mp4\nalias.mp4\nbad\0name.mp4\n"
    )
    (films / "here.mp4").write_bytes(b"seven b")
    (films / "alias.mp4").symlink_to(films / "here.mp4")
    found = list_sources([str(films / "list.csv")]).to_pylist()
    sizes = {row["uri"].rpartition("/")[2]: row["size_bytes"] for row in found}
    assert sizes.pop("here.mp4") == 7
    assert len(sizes) == 4
    assert set(sizes.values()) == {None}


def test_a_file_that_is_not_there_says_whether_its_folder_is(films, tmp_path):
    for path, said in (
        (films / "gone.mp4", r"^not_found: No such file or directory$"),
        (films / "nowhere/gone.mp4", rf"its folder {films}/nowhere does not exist either on "),
        (tmp_path / "mount/gone.mp4", r"its folder .*/mount is empty on .* not mounted"),
    ):
        (tmp_path / "mount").mkdir(exist_ok=True)
        with (
            pytest.raises(BadSource, match=said),
            fetched(str(path), max_bytes=10, scratch=tmp_path),
        ):
            pass


def test_what_is_no_regular_file_of_the_right_size_is_refused(films, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (films / "link.mp4").symlink_to(films / "b.mp4")
    os.mkfifo(films / "fifo.mp4")
    (films / "empty.mp4").touch()
    (films / "folder.mp4").mkdir()
    assert reason(films / "link.mp4", scratch) == "not_regular"
    assert reason(films / "fifo.mp4", scratch) == "not_regular"
    assert reason(films / "folder.mp4", scratch) == "not_regular"
    assert reason("/dev/zero", scratch) == "not_regular"
    assert reason(films / "gone.mp4", scratch) == "not_found"
    assert reason(films / "b.mp4/x.mp4", scratch) == "not_found"
    assert reason(films / "empty.mp4", scratch) == "empty"
    assert reason(films / "b.mp4", scratch, max_bytes=4) == "too_large"
    assert reason("ftp://example.invalid/a.mp4", scratch) == "unreadable"


def test_remote_objects_are_refused_for_the_same_reasons(s3_bucket, tmp_path):
    put(s3_bucket, "empty.mp4", b"")
    put(s3_bucket, "large.mp4", b"x" * 101)
    assert reason(f"{s3_bucket}/empty.mp4", tmp_path) == "empty"
    assert reason(f"{s3_bucket}/large.mp4", tmp_path) == "too_large"
    assert reason(f"{s3_bucket}/gone.mp4", tmp_path) == "not_found"


@pytest.fixture
def faulty_store(s3_endpoint: str, s3_bucket: str, monkeypatch) -> Iterator[tuple[str, list[str]]]:
    """A proxy before the store: the first answers to GET are an error, half a body, a reset."""
    faults = ["half", "503", "reset", "half"]

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            fault = faults.pop(0) if self.command == "GET" and faults else None
            if fault == "reset":
                self.connection.close()
                self.close_connection = True
                return
            if fault == "503":
                self.send_error(503)
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            request = urllib.request.Request(
                s3_endpoint + self.path, headers=headers, method=self.command
            )
            try:
                answer = urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                body = answer.read()
                length = answer.headers.get("Content-Length", str(len(body)))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "half" else body)
            self.close_connection = fault == "half"

        do_GET = do_HEAD = _pass

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", faults
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_source_comes_whole_through_a_store_that_fails_four_times(
    s3_bucket, faulty_store, tmp_path, monkeypatch
):
    data = os.urandom(300_000)
    put(s3_bucket, "a.mp4", data)
    address, faults = faulty_store
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with fetched(f"{s3_bucket}/a.mp4", max_bytes=len(data), scratch=tmp_path) as source:
        assert source.sha256 == hashlib.sha256(data).hexdigest()
        assert source.path.read_bytes() == data
    assert faults == []
