"""Corpora of made-up clips for the report: real layers, real selections, no video."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import to_parquet
from curation.corpus.schema import SOURCES, layer_schema, schema
from curation.corpus.store import Store
from curation.select import Rule, SelectConfig, select

NAMESPACE = uuid.UUID("6b1f1c2e-9a55-5d0e-8f0e-0a5f6a3f7c11")
PRESENT = (
    "probe",
    "scenes",
    "keyframes",
    "aesthetics",
    "overlay_text",
    "safety",
    "taxonomy",
    "captions",
    "caption_text",
)
RULES = SelectConfig(
    rules=(
        Rule(column="aesthetic_score", min=4.0, source="a test"),
        Rule(column="motion_mean", min=0.01, media="video", source="a test"),
        Rule(column="caption_words", min=3, source="a test"),
    )
)


def keyframe(seed: int, size: tuple[int, int] = (96, 54)) -> bytes:
    """A JPEG of one colour."""
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


@dataclass
class Clips:
    """Rows of sources and of clips, as dicts; columns that a row does not give are null."""

    sources: list[list[dict[str, Any]]] = field(default_factory=list)
    clips: list[list[dict[str, Any]]] = field(default_factory=list)
    layers: tuple[str, ...] = PRESENT

    def column(self, name: str) -> list[Any]:
        """One column over all parts."""
        return [clip.get(name) for part in self.clips for clip in part]


def source(uri: str = "films/a.mp4", **given: Any) -> dict[str, Any]:
    """A source that could be read."""
    row = {"uri": uri, "media": "video", "size_bytes": 1000, "source_sha256": "0" * 64}
    return row | {"source_duration_s": 60.0, "num_scenes": 0} | given


def clip(number: int, **given: Any) -> dict[str, Any]:
    """A good clip of the first source of its part."""
    row = {
        "clip_id": str(uuid.uuid5(NAMESPACE, str(number))),
        "source_row": 0,
        "scene_index": number,
        "start_s": 5.0 * number,
        "end_s": 5.0 * number + 5,
        "duration_s": 5.0,
        "num_frames": 120,
        "fps": 24.0,
        "width": 1280,
        "height": 720,
        "motion_mean": 0.1,
        "brightness_mean": 100.0,
        "sharpness": 200.0,
        "contrast_mean": 40.0,
        "still_share": 0.1,
        "frozen_share": 0.0,
        "dark_share": 0.1,
        "bright_share": 0.1,
        "border_share": 0.0,
        "perceptual_hashes": [],
        "keyframes": [keyframe(number)],
        "keyframe_s": [1.0],
        "aesthetic_score": 5.0,
        "overlay_text_share": 0.0,
        "nsfw_score": 0.01,
        "category": "Travel",
        "tags": ["lakeside", "valley"],
        "caption": "a lake in the valley",
        "caption_engine": "given",
        "caption_words": 5,
        "caption_language": "en",
    }
    return row | given


def many(num_parts: int, clips_per_part: int, seed: int = 0) -> Clips:
    """Random clips over the whole range of every number, nulls and images among them."""
    rng = np.random.default_rng(seed)
    made = Clips()
    for part in range(num_parts):
        size = int(rng.integers(1, 10**9))
        digest = f"{part:064x}"
        made.sources.append([source(f"films/{part}.mp4", size_bytes=size, source_sha256=digest)])
        first = part * clips_per_part
        made.clips.append([_random_clip(rng, first + i) for i in range(clips_per_part)])
    return made


def _random_clip(rng: np.random.Generator, number: int) -> dict[str, Any]:
    is_image = rng.random() < 0.2
    words = int(rng.integers(0, 20))
    return clip(
        number,
        duration_s=0.0 if is_image else float(np.float32(rng.gamma(2, 4))),
        fps=None if is_image else float(rng.choice([24, 25, 30, 50, 60])),
        motion_mean=None if is_image or rng.random() < 0.1 else float(rng.gamma(1, 0.1)),
        width=int(rng.integers(100, 2000)),
        height=int(rng.integers(100, 2000)),
        aesthetic_score=None if rng.random() < 0.05 else float(rng.normal(5, 1.5)),
        brightness_mean=float(rng.uniform(0, 255)),
        sharpness=float(rng.gamma(1, 300)),
        overlay_text_share=float(rng.beta(1, 30)),
        nsfw_score=float(rng.beta(1, 10)),
        caption_words=words,
        caption=" ".join(["word"] * words) or None,
        category=str(rng.choice(["Travel", "Music", "Sports", "Comedy"], p=[0.5, 0.3, 0.1, 0.1])),
        keyframes=[keyframe(number)],
    )


@dataclass
class Made:
    """A corpus on disk with a finished selection."""

    store: Store
    info: CorpusInfo
    clips: Clips
    selection: str = "default"


def write_corpus(
    root: Path, clips: Clips, config: SelectConfig = RULES, *, command: str = "lavie curate films"
) -> Made:
    """Put made-up clips on disk and select from them."""
    store = Store(str(root))
    layers = {n: layout.layer_id(n, version=1, digest="0123456789ab") for n in clips.layers}
    for part, (sources, rows) in enumerate(zip(clips.sources, clips.clips, strict=True)):
        store.write(layout.sources(part), to_parquet(_table(sources, schema(SOURCES))))
        for name in clips.layers:
            given = sources if name == "probe" else rows
            made_by = {"name": name, "version": 1, "settings": {"size": 3}, "weights": {}}
            table = _table(given, layer_schema(name))
            store.write(layout.layer(layers[name], part), to_parquet(table, made_by=made_by))
    info = CorpusInfo(num_parts=len(clips.sources), layers=layers, created_by=command)
    info.write(store)
    select(store, info, "default", config)
    return Made(store, info, clips)


def _table(rows: list[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{n: row.get(n) for n in columns.names} for row in rows], columns)


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Made]:
    """Write a corpus into the test's folder."""

    def make(clips: Clips, config: SelectConfig = RULES, **given: Any) -> Made:
        return write_corpus(tmp_path / "corpus", clips, config, **given)

    return make


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three parts of two hundred random clips."""
    return write_corpus(tmp_path_factory.mktemp("big"), many(3, 200))


@pytest.fixture
def build() -> SimpleNamespace:
    """Makers of rows, for tests that want certain ones."""
    return SimpleNamespace(clip=clip, source=source, many=many, keyframe=keyframe, Clips=Clips)
