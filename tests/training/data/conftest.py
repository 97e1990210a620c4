"""Configurations and draws that the tests of the data share."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.data.batch import Draw
from training.data.loader import TrainingData
from training.run_config import DataConfig, Phase, SampleConfig, Source, TrainConfig

SIZES = ((32, 48), (48, 32))


@pytest.fixture(scope="session")
def run_of() -> Callable[..., TrainConfig]:
    """``run_of(corpus, ...)``: 12 steps of 4 samples of 8 frames and 2 images; fields by their names."""

    def make(corpus: Path | str, **changes: object) -> TrainConfig:
        config = TrainConfig(
            phases=(Phase(steps=12, sizes_px=SIZES),),
            sample=SampleConfig(num_frames=8, images_per_video=2, crop="random"),
            data=DataConfig(
                sources=(Source(corpus=str(corpus)),),
                batch_size=4,
                micro_batch_size=1,
                holdout_share=0.1,
                holdout_by="clip",
                num_workers=0,
            ),
        )
        for part in ("sample", "data", "loss"):
            own = getattr(config, part)
            mine = {name: changes.pop(name) for name in list(changes) if hasattr(own, name)}
            changes[part] = replace(own, **mine)
        return replace(config, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share, as runs do."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def draw_of() -> Callable[[TrainConfig], Draw]:
    """The draw of a run's real stage."""
    from training.stages import stage_of

    return lambda config: stage_of(config).draw


@pytest.fixture(scope="session")
def opened(
    cache: Path, run_of: Callable[..., TrainConfig], small_corpus: Path
) -> Callable[..., TrainingData]:
    """``opened(...)``: the data of `run_of` the small corpus."""
    return lambda **changes: TrainingData(run_of(small_corpus, **changes), cache=cache)


@pytest.fixture
def broken_corpus(small_corpus: Path, tmp_path: Path) -> Callable[[int], tuple[Path, list[str]]]:
    """``broken_corpus(3)``: a copy in which three wide clips hold zeros, and their ids."""

    def make(number: int) -> tuple[Path, list[str]]:
        from curation.corpus.shards import read_index
        from curation.corpus.store import Store

        corpus = tmp_path / "broken"
        shutil.copytree(small_corpus, corpus)
        rows = read_index(Store(str(corpus)), "default").to_pylist()
        broken = [row for row in rows if row["width"] == 128][:number]
        for row in broken:
            with (corpus / "shards/default" / row["shard"]).open("r+b") as file:
                file.seek(row["media_offset"])
                file.write(bytes(row["media_size"]))
        return corpus, [row["clip_id"] for row in broken]

    return make


@pytest.fixture
def reindexed(small_corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """``reindexed(lambda rows: rows[:5])``: a copy with another index of the shards."""

    def make(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
        import pyarrow as pa

        from curation.corpus.manifest import canonical_json
        from curation.corpus.parts import to_parquet
        from curation.corpus.schema import SHARD_INDEX, schema
        from curation.corpus.shards import manifest_digest, read_index, read_manifest
        from curation.corpus.store import Store

        corpus = tmp_path / f"reindexed-{uuid.uuid4().hex}"
        shutil.copytree(small_corpus, corpus)
        store = Store(str(corpus))
        rows = change(read_index(store, "default").to_pylist())
        store.write(
            "shards/default/index.parquet",
            to_parquet(pa.Table.from_pylist(rows, schema=schema(SHARD_INDEX))),
        )
        # the catalog goes by the digest of the contents, which a real export would have changed
        manifest = read_manifest(store, "default") | {"contents": uuid.uuid4().hex}
        manifest["digest"] = manifest_digest(manifest)
        store.write("shards/default/manifest.json", canonical_json(manifest))
        return corpus

    return make
