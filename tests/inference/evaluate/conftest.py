"""An extractor whose features can be computed by hand, and folders of films to look at with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.evaluate.clipsim import ClipScorer


class Moments:
    """Means and deviations of red, green and blue over a clip: six features."""

    sha256 = "0" * 64

    def __call__(self, video_BCTHW: Tensor) -> Tensor:
        pixels_BCN = video_BCTHW.flatten(2) / 255
        return torch.cat([pixels_BCN.mean(dim=2), pixels_BCN.std(dim=2)], dim=1)


@pytest.fixture
def moments() -> Moments:
    """The extractor."""
    return Moments()


@pytest.fixture(scope="session")
def film_folder(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> Callable[[Sequence[str]], Path]:
    """``film_folder(["red", "teal/2"])``: a folder of films of 5 frames of 48x36, one a look."""

    def make(looks: Sequence[str]) -> Path:
        folder = tmp_path_factory.mktemp("films")
        for index, look in enumerate(looks):
            make_video(folder / f"{index}.mp4", [(look, 5)], size=(48, 36), fps=8)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_scorer(tiny_clip_folder: Path) -> ClipScorer:
    """CLIPSIM by a real open_clip model of tiny size."""
    from curation.stations.clip_model import ClipModel, load_clip

    loaded = load_clip(ClipModel(architecture=str(tiny_clip_folder)))
    return ClipScorer(**loaded._asdict(), name="tiny-clip", sha256={"weights": "1" * 64})


@pytest.fixture
def noise_frames() -> Callable[..., np.ndarray]:
    """Seeded frames uint8 ``[T, H, W, 3]``."""

    def make(seed: int, count: int = 3) -> np.ndarray:
        generator = np.random.default_rng(seed)
        return generator.integers(0, 256, (count, 40, 48, 3), dtype=np.uint8)

    return make


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)
