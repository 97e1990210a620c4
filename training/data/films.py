"""All frames of a selection's clips in memory, for what learns from single pictures.

Shape letters: N frames, C channels RGB, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curation.corpus.shards import read_index, read_manifest, read_sample
from curation.corpus.store import Store
from curation.errors import TrainingDataError
from training.data.picture import view
from training.data.random_numbers import generator
from training.data.reading import read_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesConfig:
    """Which frames."""

    selection: str = "default"
    """Name of the exported selection."""
    size_px: tuple[int, int] = (64, 112)
    """Height and width of the frames; a clip is scaled to cover it and cropped in the middle."""
    fps: float = 4.0
    """Frames taken of a second of film, above 0."""
    max_memory_gb: float = 4.0
    """Most memory that the frames may take, all of which are held, above 0; more is refused."""
    holdout_share: float = 0.05
    """Share of the clips, 0 to 1, that are never trained on and give the figures; one clip at least."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in ("fps", "max_memory_gb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.holdout_share < 1:
            raise ValueError(f"holdout_share must be 0 to below 1, got {self.holdout_share}")


@dataclass(frozen=True, slots=True)
class Films:
    """Frames of all clips, uint8 ``[N, 3, H, W]``: to learn from, and held out."""

    train_NCHW: Tensor
    held_out_NCHW: Tensor


def read_films(store: Store, config: FramesConfig, *, seed: int) -> Films:
    """Frames of a selection's clips, held out clip by clip, drawn by the seed.

    Raises:
        CorpusError: There are no finished shards.
        TrainingDataError: There are fewer than two video clips, or their frames need too much memory.
    """
    read_manifest(store, config.selection)  # refuses shards that are not finished
    rows = [
        row
        for row in read_index(store, config.selection).to_pylist()
        if row["media_name"].endswith(".mp4")
    ]
    if len(rows) < 2:
        raise TrainingDataError(
            f"{store.root}: selection {config.selection!r} has {len(rows)} video clips, two are the "
            f"least: one to learn from and one to measure on"
        )
    _check_memory(rows, config)
    rows.sort(key=lambda row: str(row["clip_id"]))
    order = generator(seed, "frames_holdout").permutation(len(rows))
    held_out = set(order[: max(1, round(config.holdout_share * len(rows)))].tolist())
    frames = [_frames(store, row, config) for row in rows]
    return Films(
        torch.cat([clip for number, clip in enumerate(frames) if number not in held_out]),
        torch.cat([clip for number, clip in enumerate(frames) if number in held_out]),
    )


def _times_s(row: Mapping[str, Any], config: FramesConfig) -> list[float]:
    last_s = (row["num_frames"] - 1) / row["fps"]
    return [number / config.fps for number in range(1 + int(last_s * config.fps))]


def _check_memory(rows: Sequence[Mapping[str, Any]], config: FramesConfig) -> None:
    num_frames = sum(len(_times_s(row, config)) for row in rows)
    needed_gb = num_frames * 3 * config.size_px[0] * config.size_px[1] / 1e9
    if needed_gb > config.max_memory_gb:
        raise TrainingDataError(
            f"{num_frames:,} frames of {config.size_px[0]}x{config.size_px[1]} take {needed_gb:.1f} GB, "
            f"max_memory_gb allows {config.max_memory_gb:g}: take fewer by fps, or allow more"
        )


def _frames(store: Store, row: Mapping[str, Any], config: FramesConfig) -> Tensor:
    shown = view(row["height"], row["width"], config.size_px, fit="cover", draw=None)
    sample = read_sample(store, config.selection, row)
    return read_frames(sample.media, _times_s(row, config), shown)
