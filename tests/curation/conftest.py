"""Keyframes and tiny models that the keyframe stations' tests share."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.errors import MissingWeights
from curation.weights import Weight, find

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


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of open_clip's real class, 32 px and 2 layers, random weights, as a model folder."""
    from curation.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess = {
        "size": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
