"""Layers side by side, and what happens when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.parts import read_clips, read_table, to_parquet
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.errors import MissingColumn, TornPart

LAYERS = {"probe": "probe@1-a", "scenes": "scenes@1-a", "safety": "safety@1-b"}


def rows(name: str, values: list[dict[str, object]]) -> bytes:
    schema = layer_schema(name)
    return to_parquet(
        pa.Table.from_pylist(
            [{n: row.get(n) for n in schema.names} for row in values], schema=schema
        )
    )


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


def test_a_flipped_bit_in_the_values_is_noticed(store: Store) -> None:
    values = [{"clip_id": f"clip-{i}", "nsfw_score": i * 0.001} for i in range(1000)]
    name = layout.layer(LAYERS["safety"], 1)
    store.write(name, rows("safety", values))
    whole = bytearray(store.read(name))
    whole[len(whole) // 3] ^= 0x10
    store.write(name, bytes(whole))
    with pytest.raises((TornPart, OSError)):
        read_table(store, name)


def test_the_same_table_gives_the_same_bytes_and_another_setting_does_not() -> None:
    table = layer_schema("safety").empty_table()
    made = {"name": "safety", "settings": {"size": 224}}
    assert to_parquet(table, made_by=made) == to_parquet(table, made_by=dict(made))
    assert to_parquet(table, made_by=made) != to_parquet(table, made_by={**made, "version": 2})
