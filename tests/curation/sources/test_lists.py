"""Lists as the world sends them: one odd row costs that row at most."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.corpus.schema import SOURCES, schema
from curation.decode.decoding_pass import DecodingPass
from curation.decode.measuring import DecodeConfig
from curation.errors import BadSource, UsageError
from curation.sources import fetched, list_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_bytes(b"film")
    return tmp_path


def rows_of(path: Path, content: str | bytes) -> list[dict]:
    """The rows of a list with this content, in the order of their addresses."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = list_sources([str(path)])
    assert table.schema.equals(schema(SOURCES), check_metadata=True)
    return table.to_pylist()


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (
            'uri,caption\r\na.mp4,"two lines:\r\n""quoted"" and, comma"\r\n',
            'two lines:\r\n"quoted" and, comma',
        ),
        ("\ufeffuri,caption\na.mp4,a white rabbit\n", "a white rabbit"),
        ("uri;caption\na.mp4;a white, white rabbit\n", "a white, white rabbit"),
        ("URI,Caption\na.mp4,a white rabbit\n", "a white rabbit"),
        ("uri\tcaption\na.mp4\ta white rabbit", "a white rabbit"),
        ("uri,caption\ra.mp4,a white rabbit\r", "a white rabbit"),
        (
            "uri,caption\na.mp4,\u4e00\u53ea\u767d\u5154 \U0001f407\n",
            "\u4e00\u53ea\u767d\u5154 \U0001f407",
        ),
    ],
)
def test_csv_of_any_making_is_read(folder, content, caption):
    (row,) = rows_of(folder / "list.csv", content)
    assert row["uri"] == str(folder / "a.mp4")
    assert (row["given_caption"], row["given_captions"]) == (caption, [caption])
    assert row["listing_reject"] is None


def test_utf_16_is_read_and_bytes_that_are_not_utf_8_are_read_as_windows_1252_and_counted(
    folder, caplog
):
    text = "uri,caption\na.mp4,caf\u00e9 au lait\n"
    assert (
        rows_of(folder / "list.csv", text.encode("utf-16"))[0]["given_caption"]
        == "caf\u00e9 au lait"
    )
    with caplog.at_level(logging.WARNING):
        (row,) = rows_of(folder / "list.csv", text.encode("latin-1"))
    assert row["given_caption"] == "caf\u00e9 au lait"
    assert "1 cells hold bytes that are not UTF-8" in caplog.text


def test_lines_of_json_that_are_not_utf_8_are_counted_as_cells_of_a_table_are(folder, caplog):
    lines = b'{"uri": "a.mp4", "caption": "caf\xe9"}\n{"uri": "b.mp4", "caption": "tea"}\n'
    with caplog.at_level(logging.WARNING):
        first, second = rows_of(folder / "list.jsonl", lines)
    assert (first["given_caption"], second["given_caption"]) == ("caf\u00e9", "tea")
    assert "1 lines hold bytes that are not UTF-8 and were read as Windows-1252" in caplog.text


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_bytes_that_are_no_list_are_shown_so_that_a_terminal_prints_them(folder, name):
    draw = random.Random(4)
    for start in (b"", b"\x1b[2Juri\x07,\x9b31m,", b'"\x1b]0;title\x07', b'{"\x1b[2J": 1}\n'):
        with pytest.raises(UsageError) as error:
            rows_of(folder / name, start + draw.randbytes(3000))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1500


@pytest.mark.parametrize("late", ["N/A", "see ticket", "[1]"])
def test_a_column_that_changes_its_kind_late_in_a_long_file_costs_nothing(folder, late):
    lines = ["uri,title,views"]
    lines += [f"clip_{i:07d}.mp4,{i},{i if i < 29_000 else late}" for i in range(30_000)]
    rows = rows_of(folder / "list.csv", "\n".join(lines))
    assert len(rows) == 30_000
    assert rows[1]["title"] == "1"


def test_titles_that_look_like_dates_numbers_or_nothing_stay_text(folder):
    titles = ["2024-01-05", "1e5", "007", "null", "NaN", "true"]
    content = "uri,title\n" + "".join(f"{i}.mp4,{title}\n" for i, title in enumerate(titles))
    assert [row["title"] for row in rows_of(folder / "list.csv", content)] == titles


def test_rows_with_other_numbers_of_cells_are_rows_with_a_reason(folder):
    rows = rows_of(folder / "list.csv", "uri,caption\na.mp4,ok\nb.mp4,one, two\nc.mp4\nd.mp4,ok\n")
    found = {row["uri"]: (row["listing_reject"], row["listing_reject_detail"]) for row in rows}
    assert found == {
        str(folder / "a.mp4"): (None, None),
        str(folder / "d.mp4"): (None, None),
        f"{folder}/list.csv#row-2": ("bad_row", "3 cells, the header has 2"),
        f"{folder}/list.csv#row-3": ("bad_row", "1 cells, the header has 2"),
    }


def test_a_quotation_mark_that_nothing_closes_costs_its_own_row(folder):
    content = 'uri,caption\na.mp4,"two\nlines"\nb.mp4,"never closed\n' + "".join(
        f"c{i:04d}.mp4,fine\n" for i in range(1000)
    )
    rows = rows_of(folder / "list.csv", content)
    assert sum(row["listing_reject"] is None for row in rows) == 1001
    (bad,) = [row for row in rows if row["listing_reject"]]
    assert bad["listing_reject_detail"] == "a quotation mark that nothing closes"
    assert "two\nlines" in [row["given_caption"] for row in rows]


def test_json_of_any_kind_where_text_was_due_is_text(folder):
    content = jsonl(
        {"uri": "0.mp4", "title": 1999, "caption": None, "tags": ["a"]},
        {"uri": "1.mp4", "title": ["a", 1], "caption": float("nan"), "tags": "none"},
        {"uri": "2.mp4", "title": {"en": "x"}, "caption": ["one", None, "two", 3]},
        {"uri": "3.mp4", "title": True, "caption": "line one\nline two\u2028three \u0000null"},
    )
    rows = rows_of(folder / "list.jsonl", content)
    assert [row["title"] for row in rows] == ["1999", '["a", 1]', '{"en": "x"}', "true"]
    assert [row["given_captions"] for row in rows] == [
        [],
        [],
        ["one", "two", "3"],
        ["line one\nline two\u2028three \u0000null"],
    ]
    assert rows[2]["given_caption"] == "one"


def test_lines_that_are_no_objects_are_rows_with_a_reason_and_blank_ones_are_none(folder):
    content = (
        b'\xef\xbb\xbf\n{"uri": "a.mp4"}\n\nnot json\n["uri"]\n{"uri": "b.mp4", "title": "caf\xe9"}\n'
        + b"[" * 100_000
    )
    rows = rows_of(folder / "list.jsonl", content)
    reasons = {row["uri"].rsplit("/", 1)[1]: row["listing_reject_detail"] for row in rows}
    assert reasons.pop("a.mp4") is None
    assert reasons.pop("b.mp4") is None
    assert reasons.pop("list.jsonl#row-5") == "the line is no JSON object but list"
    assert all(detail.startswith("the line is no JSON") for detail in reasons.values())
    assert list(reasons) == ["list.jsonl#row-4", "list.jsonl#row-7"]


def test_half_a_character_is_replaced_and_counted(folder, caplog):
    with caplog.at_level(logging.WARNING):
        (row,) = rows_of(
            folder / "list.jsonl", '{"uri": "a.mp4", "caption": "broken \\ud83d emoji"}\n'
        )
    assert row["given_caption"] == "broken \ufffd emoji"
    assert "1 cells hold halves of characters" in caplog.text
    (row,) = rows_of(folder / "list.jsonl", '{"uri": "\\ud83d.mp4"}\n')
    assert row["listing_reject"] == "bad_address"


@pytest.mark.parametrize(
    ("uri", "detail"),
    [
        (None, "no address"),
        ("  ", "no address"),
        (17, "no text but int"),
        (["a.mp4"], "no text but list"),
        ("a\0.mp4", "NUL"),
        ("a" * 10_000, "10,000 characters"),
        ("ftp://example.org/a.mp4", "ftp:// is not a store"),
        ("https://me:hunter2@example.org/a.mp4", "a user name or a password"),
        ("https://example.org/a.mp4?api_key=hunter2", "a token or a signature"),
        ("https:///a.mp4", "names no host"),
        ("hf://datasets/org/name/a.mp4?token=hunter2", "user name, a password or a key"),
        ("hf://datasets/org/name/a.mp4?endpoint=x", "how its store is reached"),
        ("hf://datasets/a.mp4", "names no repository"),
        ("s3://KEY:hunter2@bucket/x.mp4", "user name, a password or a key"),
        ("s3://bucket/x.mp4?secret_key=hunter2", "user name, a password or a key"),
        ("s3://bucket/x.mp4?endpoint_override=127.0.0.1:9&scheme=http", "how its store is reached"),
        ("s3://bucket?region=x", "names no bucket and key"),
        ("gs://bucket:99/x.mp4", "names no bucket and key"),
        ("s3://", "names no bucket and key"),
        ("file://server/a.mp4", "names no file on this machine"),
        ("file://", "names no file on this machine"),
        ("file:///a%00.mp4", "NUL"),
        ("file:a.mp4", "without '//'"),
        ("s3:/bucket/x.mp4", "without '//'"),
        ("data:video/mp4;base64,AAAA", "without '//'"),
        ("concat:a.mp4|b.mp4", "without '//'"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_row_with_a_reason_and_no_secret(folder, uri, detail):
    rows = rows_of(folder / "list.jsonl", jsonl({"uri": "a.mp4"}, {"uri": uri}))
    assert len(rows) == 2
    (bad,) = [row for row in rows if row["listing_reject"]]
    assert bad["uri"] == f"{folder}/list.jsonl#row-2"
    assert bad["listing_reject"] == "bad_address"
    assert detail in bad["listing_reject_detail"]
    assert "hunter2" not in str(bad)


def test_a_bad_row_is_a_rejected_source_of_the_corpus(folder):
    (folder / "list.jsonl").write_text(jsonl({"uri": "s3://u:p@bucket/x.mp4"}, {"uri": None}))
    decoding = DecodingPass(DecodeConfig())
    decoding.setup()
    try:
        tables = decoding(list_sources([str(folder / "list.jsonl")]))
    finally:
        decoding.close()
    assert tables["probe"]["source_reject"].to_pylist() == ["bad_address", "bad_address"]
    assert tables["probe"]["source_reject_detail"].to_pylist()[1] == "the row has no address"
    assert tables["scenes"].num_rows == 0


@pytest.fixture
def watched_server() -> Iterator[tuple[str, list[str]]]:
    """A loopback server and the requests that it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _see(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_GET = do_HEAD = do_PUT = do_POST = _see

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_no_address_makes_a_worker_ask_another_server(s3_bucket, watched_server, tmp_path):
    address, seen = watched_server
    query = f"?endpoint_override={address}&scheme=http&access_key=a&region=us-east-1"
    evil = f"{s3_bucket}/x.mp4{query}"
    (tmp_path / "list.jsonl").write_text(jsonl({"uri": evil}, {"uri": evil.replace("?", "%3F")}))
    reasons = list_sources([str(tmp_path / "list.jsonl")])["listing_reject"].to_pylist()
    assert sorted(map(str, reasons)) == ["None", "bad_address"]  # %3F is a character of a key
    for uri in (evil, evil.replace("?", "%3F")):  # as if it stood in a corpus
        with (
            pytest.raises(BadSource) as caught,
            fetched(uri, max_bytes=10, scratch=tmp_path),
        ):
            pass
        assert caught.value.reason == "not_found"
    assert seen == []


def test_a_key_with_marks_and_percent_signs_is_taken_as_it_is_spelled(s3_bucket, tmp_path):
    import pyarrow.fs as pafs

    filesystem, path = pafs.FileSystem.from_uri(s3_bucket)
    for name in ("a b%20c.mp4", "what?scheme=x.mp4", "100%.mp4"):
        with filesystem.open_output_stream(f"{path}/{name}") as stream:
            stream.write(name.encode())
    for uri in list_sources([s3_bucket])["uri"].to_pylist():
        with fetched(uri, max_bytes=100, scratch=tmp_path) as source:
            assert source.file.read().decode() == uri.rsplit("/", 1)[1]


def test_twenty_rows_for_one_film_keep_their_twenty_captions(folder):
    content = "uri,caption,title\n" + "".join(
        f"a.mp4,caption {i},{'A title' if i == 7 else ''}\n" for i in range(20)
    )
    (row,) = rows_of(folder / "list.csv", content + "./a.mp4,caption 3,Another\n")
    assert row["given_captions"] == [f"caption {i}" for i in range(20)]
    assert row["given_caption"] == "caption 0"
    assert row["title"] == "A title"


def test_a_list_and_a_folder_together_say_all_that_either_says(folder):
    (folder / "list.csv").write_text("uri,caption\na.mp4,from the list\n")
    for specs in ([folder, folder / "list.csv"], [folder / "list.csv", folder]):
        (row,) = list_sources([str(spec) for spec in specs]).to_pylist()
        assert (row["given_caption"], row["size_bytes"]) == ("from the list", 4)


def test_a_path_through_the_folder_above_names_the_same_film(folder):
    (folder / "lists").mkdir()
    (row,) = rows_of(folder / "lists" / "list.csv", "uri\n../a.mp4\n")
    assert row["uri"] == str(folder.resolve() / "a.mp4")


def test_a_path_and_every_file_uri_of_it_are_one_source(folder):
    (folder / "of spring.mp4").write_bytes(b"film")
    path = folder.resolve() / "of spring.mp4"
    quoted = str(path).replace(" ", "%20")
    written = ["of spring.mp4", path, f"file://{quoted}", f"FILE://localhost{quoted}"]
    written.append(f"file:{quoted}")
    written.append(f"file://{quoted}".replace("/of", "/lists/../of"))
    (folder / "lists").mkdir()
    (row,) = rows_of(folder / "list.jsonl", jsonl(*({"uri": str(each)} for each in written)))
    assert (row["uri"], row["listing_reject"]) == (str(path), None)


def test_a_file_uri_keeps_a_name_that_is_not_utf_8(folder):
    uri = f"file://{folder.resolve()}/caf%E9.mp4"
    (row,) = rows_of(folder / "list.jsonl", jsonl({"uri": uri}))
    assert row["uri"] == uri


def test_parquet_of_any_types_is_read(folder):
    table = pa.table(
        {
            "uri": pa.array(["0.mp4", "1.mp4", None]).dictionary_encode(),
            "caption": pa.array([["one", "two"], None, []]),
            "title": pa.array([1.5, float("nan"), None]),
            "author": pa.array([b"caf\xc3\xa9", b"caf\xe9", None], pa.binary()),
            "license": pa.array(["CC0", "", None], pa.large_string()),
            "other": pa.array([{"a": 1}, None, None]),
        }
    )
    pq.write_table(table, folder / "list.parquet")
    rows = list_sources([str(folder / "list.parquet")]).to_pylist()
    assert [row["given_captions"] for row in rows] == [["one", "two"], [], []]
    assert [row["title"] for row in rows] == ["1.5", None, None]
    assert [row["author"] for row in rows] == ["caf\u00e9", "caf\u00e9", None]
    assert [row["licence"] for row in rows] == ["CC0", None, None]
    assert rows[2]["listing_reject"] == "bad_address"


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("list.csv", b"", "it is empty"),
        ("list.csv", b"path,text\na.mp4,x\n", "no column 'uri', only path, text"),
        ("list.csv", b"uri,uri\na,b\n", "two columns of one name"),
        ("list.csv", bytes(range(256)) * 40, "cannot be read"),
        ("list.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no column 'uri'"),
        ("list.jsonl", b'[{"uri": "a.mp4"}]', "no line is a JSON object"),
        ("list.jsonl", b'{"path": "a.mp4"}', "no 'uri', only path"),
        ("list.jsonl", b"\x89PNG\r\n\x1a\n", "no line is a JSON object"),
        ("list.parquet", b"PAR1 not really", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_is_refused_whole(folder, name, content, error):
    with pytest.raises(UsageError, match=error):
        rows_of(folder / name, content)


def test_a_list_without_rows_or_that_is_not_there_is_refused(folder):
    for name, content in (("list.csv", "uri,caption\n"), ("gone.csv", None)):
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(UsageError, match=name):
            list_sources([str(folder / name)])


def test_a_caption_of_a_megabyte_is_read_by_either_way(folder):
    caption = "word " * 300_000
    (row,) = rows_of(folder / "list.csv", f'uri,caption\na.mp4,"{caption}\n."\n')
    assert len(row["given_caption"]) > 1_400_000
    (row,) = rows_of(folder / "list.jsonl", jsonl({"uri": "a.mp4", "caption": caption}))
    assert row["given_caption"] == caption.strip()
