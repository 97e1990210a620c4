"""Layers side by side, and what happens when they do not fit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.parts import (
    in_order,
    read_clips,
    read_columns,
    read_sources,
    read_table,
    to_parquet,
    with_rows_digest,
)
from curation.corpus.schema import SOURCES, layer_schema, schema
from curation.corpus.store import Store
from curation.errors import CorpusError, MissingColumn, MissingPart, TornPart

LAYERS = {"probe": "probe@1-a", "scenes": "scenes@1-a", "safety": "safety@1-b"}


def rows(name: str, values: list[dict[str, object]]) -> bytes:
    schema = layer_schema(name)
    table = pa.Table.from_pylist(
        [{n: row.get(n) for n in schema.names} for row in values], schema=schema
    )
    return to_parquet(with_rows_digest(table), rows_per_group=64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    scenes = [
        {"clip_id": c, "source_row": r, "num_frames": 20}
        for c, r in zip("abc", (1, 1, 0), strict=True)
    ]
    store.write(layout.layer(LAYERS["scenes"], 0), rows("scenes", scenes))
    store.write(
        layout.layer(LAYERS["probe"], 0), rows("probe", [{"codec": "h264"}, {"codec": "vp9"}])
    )
    safety = [{"clip_id": c, "nsfw_score": s} for c, s in zip("abc", (0.1, 0.2, 0.3), strict=True)]
    store.write(layout.layer(LAYERS["safety"], 0), rows("safety", safety))
    return store


def test_columns_of_several_layers_and_of_the_source_stand_side_by_side(store: Store) -> None:
    clips = read_clips(store, LAYERS, 0, ["nsfw_score", "codec", "num_frames", "source_row"])
    assert clips.column_names == ["clip_id", "nsfw_score", "codec", "num_frames", "source_row"]
    assert clips["codec"].to_pylist() == ["vp9", "vp9", "h264"]
    assert clips["nsfw_score"].to_pylist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_column_whose_station_never_ran_is_named_with_its_station(store: Store) -> None:
    with pytest.raises(MissingColumn, match=r"'aesthetic_score'.*station 'aesthetics'"):
        read_clips(store, LAYERS, 0, ["aesthetic_score"])
    with pytest.raises(MissingColumn, match="no column is called 'beauty'"):
        read_clips(store, LAYERS, 0, ["beauty"])


def test_a_layer_with_other_rows_is_refused(store: Store) -> None:
    wrong = [{"clip_id": c, "nsfw_score": 0.0} for c in "acb"]
    store.write(layout.layer(LAYERS["safety"], 0), rows("safety", wrong))
    with pytest.raises(TornPart, match=r"not those of the scenes layer"):
        read_clips(store, LAYERS, 0, ["nsfw_score"])


def test_a_part_cut_off_anywhere_is_torn(store: Store) -> None:
    name = layout.layer(LAYERS["safety"], 0)
    whole = store.read(name)
    for length in range(0, len(whole), 7):
        store.write(name, whole[:length])
        with pytest.raises(TornPart, match="not a whole Parquet file"):
            read_table(store, name)


def test_a_flipped_bit_anywhere_is_a_torn_part_or_changes_no_value(store: Store) -> None:
    name = layout.layer(LAYERS["safety"], 0)
    whole = store.read(name)
    before = read_clips(store, LAYERS, 0, ["nsfw_score"])
    said = []
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        store.write(name, bytes(flipped))
        try:
            assert read_clips(store, LAYERS, 0, ["nsfw_score"]).equals(before)
        except CorpusError as error:
            said.append(str(error))
    assert len(said) > len(whole) // 2
    for message in said:
        assert name in message
        assert "lavie verify --repair" in message or "another version" in message


def test_a_missing_part_is_named_with_what_makes_it(store: Store) -> None:
    with pytest.raises(MissingPart, match=r"safety@1-b/part-00001.parquet is missing: .*curate"):
        read_table(store, layout.layer(LAYERS["safety"], 1))
    store.delete(layout.layer(LAYERS["scenes"], 0))
    with pytest.raises(MissingPart, match=r"scenes@1-a/part-00000.parquet is missing"):
        read_clips(store, LAYERS, 0, ["nsfw_score"])


def test_a_corpus_without_the_layer_that_rows_follow_is_refused(store: Store) -> None:
    with pytest.raises(MissingColumn, match="station 'scenes', which this corpus was not given"):
        read_clips(store, {"safety": LAYERS["safety"]}, 0, ["nsfw_score"])
    with pytest.raises(MissingColumn, match="station 'probe'"):
        read_sources(store, {"scenes": LAYERS["scenes"]}, 0, ["codec"])


def test_a_file_without_a_column_that_its_layer_has_is_of_another_version(store: Store) -> None:
    name = layout.layer(LAYERS["safety"], 0)
    store.write(name, to_parquet(pa.table({"clip_id": ["a", "b", "c"]})))
    with pytest.raises(TornPart, match=r"lacks the column 'nsfw_score': another version"):
        read_clips(store, LAYERS, 0, ["nsfw_score"])


def test_a_query_reads_the_columns_alone_and_texts_as_dictionaries(store: Store) -> None:
    columns = ["codec", "nsfw_score"]
    table = read_columns(store, LAYERS, 0, columns)
    assert table.column_names == columns
    assert pa.types.is_dictionary(table["codec"].type)
    clips = read_clips(store, LAYERS, 0, columns)
    assert table["codec"].to_pylist() == clips["codec"].to_pylist()
    assert table["nsfw_score"].equals(clips["nsfw_score"])
    assert read_columns(store, LAYERS, 0, []).num_rows == 3


@pytest.mark.parametrize("ids", ["ab", "acb", "abd", "abcd"])
def test_a_query_too_sees_that_a_layer_is_of_other_clips(store: Store, ids: str) -> None:
    other = [{"clip_id": c, "nsfw_score": 0.0} for c in ids]
    store.write(layout.layer(LAYERS["safety"], 0), rows("safety", other))
    with pytest.raises(TornPart, match="not those of the scenes layer"):
        read_columns(store, LAYERS, 0, ["nsfw_score"])


@pytest.mark.parametrize("ids", ["acb", "abd", "ab"])
def test_files_without_a_digest_of_their_rows_are_compared_by_their_ids(
    store: Store, ids: str
) -> None:
    for layer, values in (("scenes", "abc"), ("safety", "abc")):
        table = pa.Table.from_pylist([{"clip_id": c} for c in values], schema=layer_schema(layer))
        store.write(layout.layer(LAYERS[layer], 0), to_parquet(table))
    assert read_columns(store, LAYERS, 0, ["nsfw_score"]).num_rows == 3
    other = pa.Table.from_pylist([{"clip_id": c} for c in ids], schema=layer_schema("safety"))
    store.write(layout.layer(LAYERS["safety"], 0), to_parquet(other))
    with pytest.raises(TornPart, match="not those of the scenes layer"):
        read_columns(store, LAYERS, 0, ["nsfw_score"])


def keyframes_in_groups(store: Store) -> Mapping[str, str]:
    """500 clips of two keyframes each, 64 in a row group."""
    ids = [f"{number:04d}" for number in range(500)]
    scenes = [{"clip_id": c, "source_row": 0, "num_frames": n} for n, c in enumerate(ids)]
    frames = [{"clip_id": c, "keyframes": [b"a", c.encode()], "keyframe_s": []} for c in ids]
    layers = {"scenes": "scenes@1-c", "keyframes": "keyframes@1-c"}
    store.write(layout.layer(layers["scenes"], 0), rows("scenes", scenes))
    store.write(layout.layer(layers["keyframes"], 0), rows("keyframes", frames))
    return layers


@pytest.mark.parametrize("place", ["local", "remote"])
def test_single_rows_are_found_in_any_row_group(
    store: Store, place: str, request: pytest.FixtureRequest
) -> None:
    if place == "remote":
        store = Store(f"{request.getfixturevalue('s3_bucket')}/corpus")
    layers, wanted = keyframes_in_groups(store), [0, 63, 64, 263, 499]
    found = read_clips(store, layers, 0, ["keyframes", "num_frames"], rows=wanted)
    assert found["num_frames"].to_pylist() == wanted
    assert found["keyframes"].to_pylist() == [[b"a", f"{n:04d}".encode()] for n in wanted]
    assert read_clips(store, layers, 0, ["keyframes"], rows=[]).num_rows == 0


def test_sources_and_what_was_found_in_them_stand_side_by_side(store: Store) -> None:
    listed = [{"uri": u, "media": "video"} for u in ("x.mp4", "y.mp4")]
    table = pa.Table.from_pylist(listed, schema=schema(SOURCES))
    store.write(layout.sources(0), to_parquet(table))
    sources = read_sources(store, LAYERS, 0, ["codec", "uri"])
    assert sources.to_pylist() == [
        {"codec": "h264", "uri": "x.mp4"},
        {"codec": "vp9", "uri": "y.mp4"},
    ]
    store.write(layout.sources(0), to_parquet(table.slice(1)))
    with pytest.raises(TornPart, match=r"probe@1-a/part-00000.parquet: its rows are not those of"):
        read_sources(store, LAYERS, 0, ["codec", "uri"])


def test_parts_come_in_order_whatever_ends_first() -> None:
    waits = [threading.Event() for _ in range(6)]

    def work(part: int) -> int:
        if part % 2 == 0:
            assert waits[part + 1].wait(10)
        waits[part].set()
        return part * part

    assert list(in_order(work, range(6), threads=2)) == [(n, n * n) for n in range(6)]


def test_the_same_table_gives_the_same_bytes_and_another_setting_does_not() -> None:
    table = layer_schema("safety").empty_table()
    made = {"name": "safety", "settings": {"size": 224}}
    assert to_parquet(table, made_by=made) == to_parquet(table, made_by=dict(made))
    assert to_parquet(table, made_by=made) != to_parquet(table, made_by={**made, "version": 2})
