"""Rows made anew between rows that stay: which are there, where they go, what a killed run has left."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from pipelines.again import (
    Again,
    add_again,
    decoded_again,
    forget,
    noted_parts,
    read_again,
    rows_of,
    rows_there,
    spliced,
)


def filled(name: str, columns: dict[str, list[object]]) -> pa.Table:
    schema, count = layer_schema(name), len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def places(*clips: tuple[str, int]) -> pa.Table:
    """Clips of a part as (clip_id, source_row)."""
    rows = [row for _, row in clips]
    return pa.table(
        {
            "clip_id": [clip_id for clip_id, _ in clips],
            "source_row": pa.array(rows, pa.int32()),
            "scene_index": pa.array([rows[:i].count(r) for i, r in enumerate(rows)], pa.int32()),
        }
    )


PART = places(("a0", 0), ("a1", 0), ("same", 1), ("same", 2), ("d0", 3))


@pytest.mark.parametrize(
    ("before", "there"),
    [
        (["a0", "a1", "same", "same", "d0"], [1, 1, 1, 1, 1]),  # has followed both batches
        (["a0", "a1", "same", "same"], [1, 1, 1, 1, 0]),  # the first of them
        (["a0", "a1", "same"], [1, 1, 0, 1, 0]),  # none: of two copies it has the later one
        (["a0", "a1", "same", "d0"], None),  # the second without the first: no run does that
        (["a0"], None),
    ],
)
def test_a_layer_is_known_to_lack_whole_batches_of_fresh_sources(
    before: list[str], there: list[int] | None
) -> None:
    again = Again(fresh=((1,), (3,)))
    found = rows_there(pa.chunked_array([before]), PART, again)
    assert found is None if there is None else found.tolist() == [bool(one) for one in there]


def test_rows_made_anew_stand_between_those_that_stay() -> None:
    before = pa.table({"clip_id": ["a0", "a1", "same"], "value": [1, 2, 3]})
    there = np.array([True, True, False, True, False])
    anew = ~there | rows_of([(0, 1)], PART)
    made = pa.table({"clip_id": ["a1", "same", "d0"], "value": [20, 30, 40]})
    after = spliced(before, there, made, anew)
    assert after["clip_id"].equals(PART["clip_id"])
    assert after["value"].to_pylist() == [1, 20, 30, 3, 40]


@pytest.mark.parametrize("killed", [False, True])
def test_sources_decoded_again_replace_their_rows_and_leave_the_others(killed: bool) -> None:
    before = {
        "probe": filled(
            "probe", {"source_reject": [None, "not_found", None], "num_scenes": [1, 0, 1]}
        ),
        "scenes": filled("scenes", {"clip_id": ["a", "c"], "source_row": [0, 2]}),
        "keyframes": filled("keyframes", {"clip_id": ["a", "c"], "keyframe_s": [[0.0], [2.0]]}),
    }
    if killed:  # after the scenes were put, and before the keyframes
        ids = {"clip_id": ["a", "old", "c"], "source_row": [0, 1, 2]}
        before["scenes"] = filled("scenes", ids)
    made = {
        "probe": filled("probe", {"source_reject": [None], "num_scenes": [2]}),
        "scenes": filled("scenes", {"clip_id": ["b0", "b1"], "source_row": [0, 0]}),
        "keyframes": filled("keyframes", {"clip_id": ["b0", "b1"], "keyframe_s": [[1.0], [1.5]]}),
    }
    after = decoded_again(before, made, [1])
    assert after["probe"]["source_reject"].to_pylist() == [None] * 3
    assert after["probe"]["num_scenes"].to_pylist() == [1, 2, 1]
    assert after["scenes"]["clip_id"].to_pylist() == ["a", "b0", "b1", "c"]
    assert after["scenes"]["source_row"].to_pylist() == [0, 1, 1, 2]
    assert after["keyframes"]["clip_id"].equals(after["scenes"]["clip_id"])
    assert after["keyframes"]["keyframe_s"].to_pylist() == [[0.0], [1.0], [1.5], [2.0]]


def test_keyframes_of_other_clips_are_not_spliced() -> None:
    scenes = filled("scenes", {"clip_id": ["a"], "source_row": [0]})
    keyframes = filled("keyframes", {"clip_id": ["x"]})
    probe = filled("probe", {"num_scenes": [1]})
    tables = {"probe": probe, "scenes": scenes, "keyframes": keyframes}
    empty = {name: table.slice(0, 0) for name, table in tables.items()}
    assert decoded_again(tables, empty, []) == {}


def test_notes_add_up_until_they_are_forgotten(tmp_path) -> None:
    store = Store(str(tmp_path))
    add_again(store, {3: Again(sources=(2,), clips={"captions": ((0, 1),)})})
    add_again(store, {3: Again(sources=(1, 2), clips={"captions": ((0, 0),), "safety": ((4, 0),)})})
    clips = {"captions": ((0, 0), (0, 1)), "safety": ((4, 0),)}
    again = read_again(store, 3)
    assert again == Again(sources=(1, 2), clips=clips)
    assert again.decoded([5, 0, 7]) == Again(fresh=((2,),), clips=clips)
    assert noted_parts(store) == {3}
    forget(store, {0, 1, 2})
    assert noted_parts(store) == {3}
    forget(store, {3})
    assert read_again(store, 3) is None
