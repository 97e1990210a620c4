"""Samples that tell what is no longer so are found, and no other; nothing is read where nothing changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.generations import by_export, committed_names, read_plans, read_shard
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.shards import read_index
from curation.corpus.store import Store
from curation.export.outdated import FactsOfToday, facts_of_parts, read_record, write_record


def today(store: Store) -> FactsOfToday:
    info = read_corpus(store)
    return FactsOfToday.read(store, info, "default", list(range(info.num_parts)))


def outdated_ids(store: Store) -> set[str]:
    facts, found = today(store), set()
    generations = by_export(read_plans(store, "default"))
    for named in committed_names(store, "default"):
        rows = read_shard(store, "default", named, generations).rows
        found |= {rows["clip_id"][place].as_py() for place, _ in facts.outdated(rows)}
    return found


def clips_of(store: Store, source_row: int) -> set[str]:
    scenes = read_table(store, layout.layer(read_corpus(store).layers["scenes"], 0))
    rows = zip(scenes["clip_id"].to_pylist(), scenes["source_row"].to_pylist(), strict=True)
    return {clip_id for clip_id, row in rows if row == source_row}


def captions_folder(store: Store) -> str:
    return layout.layer_folder(read_corpus(store).layers["captions"])


def test_an_export_is_of_today_until_a_text_changes_and_then_just_its_clips_are_not(store, change):
    assert today(store).outdated_shards() == []
    change(store, layout.SOURCES, "licence", {2: "CC0-1.0"})
    (shard,) = today(store).outdated_shards()
    assert outdated_ids(store) == clips_of(store, 2)
    index = read_index(store, "default")
    of_c = index.filter(pc.is_in(index["clip_id"], pa.array(sorted(clips_of(store, 2)))))
    assert set(of_c["shard"].to_pylist()) == {f"{layout.shard(*shard)}.tar"}


def test_a_caption_that_changes_is_found_although_licences_did_not(store, change):
    change(store, captions_folder(store), "caption", {1: "another"})
    scenes = read_table(store, layout.layer(read_corpus(store).layers["scenes"], 0))
    assert outdated_ids(store) == {scenes["clip_id"][1].as_py()}


def test_shards_without_digests_are_compared_by_their_own_json(store, change):
    generations = by_export(read_plans(store, "default"))
    change(store, layout.SOURCES, "author", {0: "somebody"})
    facts, found = today(store), set()
    for named in committed_names(store, "default"):
        rows = read_shard(store, "default", named, generations).rows
        place = rows.schema.get_field_index("facts_digest")
        nulls = pa.nulls(rows.num_rows, pa.int64())
        rows = rows.set_column(place, rows.schema.field(place), nulls)
        found |= {rows["clip_id"][at].as_py() for at, _ in facts.outdated(rows)}
    assert found == clips_of(store, 0)


def test_an_index_without_digests_names_only_shards_whose_json_differs(store, change):
    index = read_table(store, layout.shard_index("default"))
    store.write(layout.shard_index("default"), to_parquet(index.drop_columns(["facts_digest"])))
    assert today(store).outdated_shards() == []
    change(store, layout.SOURCES, "author", {2: "somebody"})
    assert len(today(store).outdated_shards()) == 1


def test_the_state_of_a_part_follows_what_facts_are_read_from_and_nothing_else(store, change):
    info = read_corpus(store)
    before = facts_of_parts(store, info, range(info.num_parts))
    assert set(before) == set(range(info.num_parts))
    keyframes = layout.layer_folder(info.layers["keyframes"])
    on_record = Ledger(store).records(keyframes)[0]
    change(store, keyframes, "keyframe_s", {0: [0.5]})
    assert Ledger(store).records(keyframes)[0] != on_record
    assert facts_of_parts(store, info, range(info.num_parts)) == before
    change(store, layout.SOURCES, "title", {0: "A"})
    assert facts_of_parts(store, info, range(info.num_parts)) != before


def test_the_record_of_what_was_compared_is_kept_and_a_damaged_one_is_none(store):
    parts = facts_of_parts(store, read_corpus(store), [0, 2])
    assert read_record(store, "default") == {}
    write_record(store, "default", parts)
    assert read_record(store, "default") == parts
    name = layout.shard_facts("default")
    store.write(name, store.read(name).replace(b"0", b"1", 1))
    assert read_record(store, "default") == {}


def test_the_same_bytes_under_two_names_are_told_apart_by_their_address(
    make_corpus, films, tmp_path, change
):
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(films / "a.mp4", tmp_path / name)
    store = Store(str(make_corpus({"a.mp4": "this", "b.mp4": "this"}, tmp_path)))
    assert len(clips_of(store, 0)) == 2
    assert clips_of(store, 0) == clips_of(store, 1)
    assert today(store).outdated_shards() == []
    change(store, layout.SOURCES, "licence", {1: "CC0-1.0"})
    (named,) = today(store).outdated_shards()
    rows = read_shard(store, "default", named, by_export(read_plans(store, "default"))).rows
    outdated = dict(today(store).outdated(rows))
    assert [rows["key"][place].as_py()[-2:] for place in outdated] == ["-1", "-1"]
    assert {Path(clip["uri"]).name for clip in outdated.values()} == {"b.mp4"}
