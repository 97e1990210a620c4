"""All frames of a selection's clips in memory, for what learns from single pictures.

Shape letters: N frames, C channels RGB, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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
    zoom: float = 2.0
    """Frames to learn from are held so many times as large, 1 to 8, and seen in parts, from the whole to
    1 / zoom of each side; 1 shows whole frames alone, which a decoder soon knows by heart."""
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
        if not 1 <= self.zoom <= 8:
            raise ValueError(f"zoom must be 1 to 8, got {self.zoom}")
        if not 0 <= self.holdout_share < 1:
            raise ValueError(f"holdout_share must be 0 to below 1, got {self.holdout_share}")

    @property
    def held_px(self) -> tuple[int, int]:
        """Height and width at which frames to learn from are held."""
        return round(self.size_px[0] * self.zoom), round(self.size_px[1] * self.zoom)


def parts_of(
    frames_NCHW: Tensor, size_px: tuple[int, int], draw: np.random.Generator | None
) -> Tensor:
    """Frames at a size no larger than theirs, fp32 -1 to 1: whole, or a drawn part of each, mirrored or not.

    Args:
        frames_NCHW: uint8.
        size_px: H and W of the result.
        draw: of the parts; the side of one is uniform from all of the frame to `size_px`, its place too.
    """
    floats_NCHW = frames_NCHW.float() / 127.5 - 1
    if draw is None:
        return _scaled(floats_NCHW, size_px)
    height, width = frames_NCHW.shape[-2:]
    shown = []
    for frame_CHW in floats_NCHW:
        share = draw.uniform(max(size_px[0] / height, size_px[1] / width), 1.0)
        part = (round(share * height), round(share * width))
        top, left = draw.integers(0, (height - part[0] + 1, width - part[1] + 1))
        cut = frame_CHW[None, :, top : top + part[0], left : left + part[1]]
        shown.append(_scaled(cut.flip(-1) if draw.random() < 0.5 else cut, size_px))
    return torch.cat(shown)


def _scaled(frames_NCHW: Tensor, size_px: tuple[int, int]) -> Tensor:
    if tuple(frames_NCHW.shape[-2:]) == size_px:
        return frames_NCHW
    return functional.interpolate(
        frames_NCHW, size=size_px, mode="bicubic", antialias=True, align_corners=False
    ).clamp(-1, 1)


@dataclass(frozen=True, slots=True)
class Films:
    """Frames of all clips, uint8 ``[N, 3, H, W]``."""

    train_NCHW: Tensor
    """To learn from, larger by the zoom."""
    held_out_NCHW: Tensor
    """To measure on, of the size that was asked for."""


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
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for number, row in enumerate(rows):
        size_px = config.size_px if number in held_out else config.held_px
        parts[number in held_out].append(_frames(store, row, config, size_px))
    return Films(torch.cat(parts[False]), torch.cat(parts[True]))


def _times_s(row: Mapping[str, Any], config: FramesConfig) -> list[float]:
    last_s = (row["num_frames"] - 1) / row["fps"]
    return [number / config.fps for number in range(1 + int(last_s * config.fps))]


def _check_memory(rows: Sequence[Mapping[str, Any]], config: FramesConfig) -> None:
    num_frames = sum(len(_times_s(row, config)) for row in rows)
    height, width = config.held_px
    needed_gb = num_frames * 3 * height * width / 1e9
    if needed_gb > config.max_memory_gb:
        raise TrainingDataError(
            f"{num_frames:,} frames of {height}x{width} take {needed_gb:.1f} GB, max_memory_gb allows "
            f"{config.max_memory_gb:g}: take fewer by fps, or a smaller zoom, or allow more"
        )


def _frames(
    store: Store, row: Mapping[str, Any], config: FramesConfig, size_px: tuple[int, int]
) -> Tensor:
    shown = view(row["height"], row["width"], size_px, fit="cover", draw=None)
    sample = read_sample(store, config.selection, row)
    return read_frames(sample.media, _times_s(row, config), shown)
