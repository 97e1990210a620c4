"""Keyframes and tiny models that the keyframe stations' tests share."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.errors import MissingWeights
from curation.weights.catalog import Weight, find

Clips = Callable[[Sequence[Sequence[Image.Image]]], pa.Table]


@pytest.fixture(scope="session")
def keyframe_clips() -> Clips:
    """Pictures, a list a clip -> a table with `clip_id` and `keyframes` (JPEG)."""

    def jpeg(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    def make(clips: Sequence[Sequence[Image.Image]]) -> pa.Table:
        rows = [[jpeg(picture) for picture in clip] for clip in clips]
        return pa.table(
            {
                "clip_id": [f"clip-{i}" for i in range(len(rows))],
                "keyframes": pa.array(rows, pa.list_(pa.binary())),
            }
        )

    return make


@pytest.fixture(scope="session")
def noise_picture() -> Callable[..., Image.Image]:
    """A smooth random picture, the same for the same seed."""

    def make(seed: int, size: tuple[int, int] = (320, 180)) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def real_weight() -> Callable[[Weight], Path]:
    """Path of a real weight, or a skip that says how to get it."""

    def path(weight: Weight) -> Path:
        try:
            return find(weight)
        except MissingWeights as error:
            pytest.skip(str(error))

    return path
