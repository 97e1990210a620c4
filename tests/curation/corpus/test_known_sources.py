"""All sources of a corpus in one file: it spares reading the parts, and never speaks against them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.known_sources import (
    KnownSources,
    forget_known_sources,
    read_known_sources,
    text_digests,
)
from curation.corpus.ledger import Ledger, commit_part
from curation.corpus.schema import SOURCES, schema
from curation.corpus.store import Store

NUM_PARTS = 70  # more than a run leaves out of the file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "corpus"))
    put(store, {part: [f"/f/{part}a.mp4", f"/f/{part}b.mp4"] for part in range(NUM_PARTS)})
    known(store).write(Ledger(store))
    return store


def sources(uris: list[str], **texts: str) -> pa.Table:
    empty = dict.fromkeys(schema(SOURCES).names) | {"given_captions": [], "size_bytes": 7}
    rows = [empty | {"uri": uri, "media": "video"} | texts for uri in uris]
    return pa.Table.from_pylist(rows, schema=schema(SOURCES))


def put(store: Store, parts: dict[int, list[str]]) -> None:
    ledger = Ledger(store)
    for part, uris in parts.items():
        ledger.record([commit_part(store, layout.SOURCES, part, sources(uris))])
    ledger.flush()


def known(store: Store) -> KnownSources:
    return read_known_sources(Ledger(store), NUM_PARTS)


def from_parts(store: Store) -> pa.Table:
    forget_known_sources(store)
    return known(store).table


def file_of(store: Store) -> Path:
    (name,) = [name for name in store.files(layout.SOURCES) if layout.is_known_sources(name)]
    return Path(store.path(name))


def test_the_file_tells_what_the_parts_tell_without_a_part_being_read(store: Store) -> None:
    told = known(store)
    assert told.num_unwritten == 0
    for part in range(NUM_PARTS):
        Path(store.path(layout.sources(part))).write_bytes(b"")
    assert known(store).table.equals(told.table)
    assert told.table["uri"].to_pylist()[:3] == ["/f/0a.mp4", "/f/0b.mp4", "/f/1a.mp4"]


def test_a_part_that_was_put_again_is_read_and_stands_at_its_place(store: Store) -> None:
    put(store, {3: ["/f/other.mp4"]})
    now = known(store)
    assert now.num_unwritten == 1
    assert now.table["uri"].to_pylist()[5:8] == ["/f/2b.mp4", "/f/other.mp4", "/f/4a.mp4"]
    assert now.table.equals(from_parts(store))


def test_a_part_that_is_being_changed_is_read(store: Store) -> None:
    Ledger(store).mark_again(layout.SOURCES, [3])
    assert known(store).num_unwritten == 1


@pytest.mark.parametrize("position", [0, 1000, -200, -1])
def test_a_file_with_a_changed_byte_is_not_believed(store: Store, position: int) -> None:
    told, path = known(store), file_of(store)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    now = known(store)
    assert now.num_unwritten == NUM_PARTS
    assert now.table.equals(told.table)


def test_a_new_file_takes_the_place_of_the_old_one(store: Store) -> None:
    before = file_of(store)
    put(store, {part: [f"/f/{part}c.mp4"] for part in range(NUM_PARTS)})
    known(store).write(Ledger(store))
    assert file_of(store) != before
    assert known(store).num_unwritten == 0
    assert known(store).table.equals(from_parts(store))


def test_texts_that_were_taken_in_are_remembered_as_long_as_the_part_stays(store: Store) -> None:
    given = sources(["/f/5a.mp4"], title="a film")
    digest = text_digests(given)
    known(store).with_told(given["uri"].combine_chunks(), digest).write(Ledger(store))
    told = dict(
        zip(*[known(store).table[name].to_pylist() for name in ("uri", "told")], strict=True)
    )
    assert told["/f/5a.mp4"] == digest[0].as_py()
    assert told["/f/5b.mp4"] is None
    put(store, {5: ["/f/5a.mp4", "/f/5b.mp4", "/f/5c.mp4"]})
    told = dict(
        zip(*[known(store).table[name].to_pylist() for name in ("uri", "told")], strict=True)
    )
    assert told["/f/5a.mp4"] is None


def test_texts_have_the_same_digest_only_in_the_same_columns() -> None:
    rows = [
        sources(["/a"], title="one", description="two"),
        sources(["/b"], title="two", description="one"),
        sources(["/c"], title="onetwo"),
        sources(["/d"], title="one\x1e3\x1etwo"),
        sources(["/e"]),
    ]
    captions = sources(["/f"]).set_column(
        schema(SOURCES).get_field_index("given_captions"),
        schema(SOURCES).field("given_captions"),
        pa.array([["one", "two"]]),
    )
    numbers = text_digests(pa.concat_tables([*rows, captions])).to_pylist()
    assert len(set(numbers)) == len(numbers)
    again = sources(["/z"], title="one", description="two")
    assert text_digests(again).to_pylist() == numbers[:1]
