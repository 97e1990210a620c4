"""Dealing sources into parts, corpus.json."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_table
from curation.corpus.schema import SOURCES, schema
from curation.corpus.store import Store
from curation.errors import CorpusError
from pipelines.corpus import deal_sources, part_starts
from pipelines.rejects import Rejects

LAYERS = {"probe": "probe@1-a", "scenes": "scenes@1-a", "keyframes": "keyframes@1-a"}


def listing(*uris: str, size_bytes: int = 5) -> pa.Table:
    rows = [{"uri": uri, "media": "video", "size_bytes": size_bytes} for uri in uris]
    names = [column.name for column in SOURCES]
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in names} for row in rows], schema=schema(SOURCES)
    )


def uris(store: Store, part: int) -> list[str]:
    return read_table(store, layout.sources(part))["uri"].to_pylist()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "corpus"))


def deal(store: Store, listed: pa.Table, *, sources_per_part: int = 2) -> int:
    dealing = deal_sources(Ledger(store), listed, sources_per_part=sources_per_part)
    dealing.write(Ledger(store))
    CorpusInfo(num_parts=dealing.num_parts, layers=LAYERS, created_by="test").write(store)
    return dealing.num_parts


def test_sources_are_dealt_in_order_and_every_source_once(store: Store) -> None:
    assert deal(store, listing("a", "b", "c", "d", "e")) == 3
    assert [uris(store, part) for part in range(3)] == [["a", "b"], ["c", "d"], ["e"]]


def test_new_sources_go_into_new_parts_and_old_ones_stay(store: Store) -> None:
    deal(store, listing("b", "d", "e"))
    assert deal(store, listing("a", "b", "c", "d", "e")) == 3
    assert [uris(store, part) for part in range(3)] == [["b", "d"], ["e"], ["a", "c"]]
    assert deal(store, listing("a", "b", "c", "d", "e")) == 3


def test_a_source_with_another_size_than_was_curated_is_refused_and_the_others_are_dealt(
    store: Store,
) -> None:
    deal(store, listing("a", "b"))
    both = pa.concat_tables([listing("a", "c"), listing("b", size_bytes=6)])
    dealing = deal_sources(Ledger(store), both, sources_per_part=2)
    assert dealing.changed == {"b": "5 bytes then, 6 now"}
    assert (dealing.new["uri"].to_pylist(), dealing.num_not_listed) == (["c"], 0)


def test_many_changed_sources_are_counted_and_ten_of_them_named() -> None:
    changed = {f"{number:02d}": "5 bytes then, 6 now" for number in range(12)}
    console = Console(file=io.StringIO(), width=200)
    Rejects(changed=changed).say_changed(console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "12 sources were refused" in said
    assert "another name" in said
    assert said.count("bytes then") == 10
    assert "and 2 more" in said


def test_sources_that_left_the_list_stay_and_are_counted(store: Store) -> None:
    deal(store, listing("a", "b", "c"))
    dealing = deal_sources(Ledger(store), listing("b", "d"), sources_per_part=2)
    assert (dealing.num_not_listed, dealing.new["uri"].to_pylist()) == (2, ["d"])
    assert not store.exists(layout.sources(2))  # nothing is written before `write`
    assert dealing.num_parts == 3
    assert deal(store, listing("b", "d")) == 3
    assert [uris(store, part) for part in range(3)] == [["a", "b"], ["c"], ["d"]]


def test_a_folder_without_a_corpus_says_what_makes_one(store: Store) -> None:
    with pytest.raises(CorpusError, match="lavie curate"):
        read_corpus(store)


def test_a_part_has_so_many_sources_or_bytes_and_a_larger_source_is_alone() -> None:
    sizes = pa.chunked_array([[3, 3, None, 5], [20, 1, 1, 1, 1]])
    starts = part_starts(sizes, most=3, most_bytes=10)
    assert starts == [0, 3, 4, 5, 8]  # by number, by bytes, alone, by number
    parts = [sizes.to_pylist()[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert parts == [[3, 3, None], [5], [20], [1, 1, 1], [1]]


def test_parts_are_dealt_by_bytes_and_told_of_the_same_from_the_file_of_all(store: Store) -> None:
    ledger = Ledger(store)
    rows = listing("a", "b", "c", "d", size_bytes=6)
    dealing = deal_sources(ledger, rows, sources_per_part=3, bytes_per_part=12)
    known = dealing.write(ledger)
    assert dealing.num_parts == 2
    assert known.table["part"].to_pylist() == [0, 0, 1, 1]
    assert read_table(store, layout.sources(1), ["uri"])["uri"].to_pylist() == ["c", "d"]
