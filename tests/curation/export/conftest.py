"""Small exported corpora whose layers get other texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.corpus import layout
from curation.corpus.ledger import Ledger, commit_part
from curation.corpus.manifest import read_corpus
from curation.corpus.parts import read_table
from curation.corpus.store import Store

FILMS = {"a.mp4": "the film a", "b.mp4": "the film b", "c.mp4": "the film c"}


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Three films of two scenes each."""
    folder = tmp_path_factory.mktemp("films")
    for name in FILMS:
        scenes = [(f"red/{name}", 54), (f"teal/{name}", 54)]
        make_video(folder / name, scenes, size=(96, 64), options={"preset": "ultrafast"})
    return folder


@pytest.fixture(scope="session")
def exported_films(make_corpus: Callable[..., Path], films: Path) -> Path:
    """The films as a corpus with two shards, of four clips and of two; tests only read it."""
    root = make_corpus(FILMS, films)
    store = Store(str(root))
    ledger, info = Ledger(store), read_corpus(store)
    for layer_id in info.layers.values():
        ledger.reconcile(layout.layer_folder(layer_id), info.num_parts)
    ledger.reconcile(layout.SOURCES, info.num_parts)
    return root


@pytest.fixture
def store(exported_films: Path, tmp_path: Path) -> Store:
    """A copy of it for one test."""
    shutil.copytree(exported_films, tmp_path / "corpus")
    return Store(str(tmp_path / "corpus"))


@pytest.fixture(scope="session")
def change() -> Callable[..., None]:
    """``change(store, folder, column, {row: value})`` commits other values to part 0 of a folder."""

    def put(store: Store, folder: str, column: str, values: dict[int, Any]) -> None:
        before = read_table(store, f"{folder}/{layout.part_file(0)}")
        place = before.schema.get_field_index(column)
        column_values = before[column].to_pylist()
        for row, value in values.items():
            column_values[row] = value
        field = before.schema.field(place)
        table = before.set_column(place, field, pa.array(column_values, field.type))
        ledger = Ledger(store)
        ledger.record([commit_part(store, folder, 0, table)])
        ledger.flush()

    return put
