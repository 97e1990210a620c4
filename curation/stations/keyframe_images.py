"""Keyframes as pictures: decoded one by one, computed in batches that cross clips.

Letters: N pictures, H W size, C channels, D numbers a picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from curation.errors import TornPart

FORMATS = ("JPEG", "WEBP")
"""What the decoding pass writes; Pillow is told to open nothing else."""


def open_keyframe(data: bytes, *, at_least_px: int | None = None) -> Image.Image:
    """Decode one keyframe to RGB.

    Args:
        data: the picture's bytes.
        at_least_px: a JPEG may come at a half, a quarter or an eighth of its size, as long as both sides
            have so many pixels: a third of the time.

    Raises:
        TornPart: if the bytes are no whole JPEG or WebP picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if at_least_px is not None:
                picture.draft("RGB", (at_least_px, at_least_px))
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise TornPart(f"a keyframe of {len(data)} bytes is no picture: {error}") from error


def num_keyframes(clips: pa.Table) -> list[int]:
    """Keyframes of each clip; 0 for a rejected scene."""
    return [len(row) if row.is_valid else 0 for row in clips["keyframes"]]


def map_keyframes(
    clips: pa.Table,
    *,
    prepare: Callable[[Image.Image], NDArray[np.generic]],
    compute: Callable[[NDArray[np.generic]], NDArray[np.float32]],
    batch_size: int,
) -> list[NDArray[np.float32]]:
    """Run a network over every keyframe of every clip.

    Batches are full whatever the clips' lengths, and depend on the table alone: the same table
    gives the same bytes. Only one batch of prepared pictures is in memory.

    Args:
        clips: a table with `keyframes`.
        prepare: one RGB picture to the network's input, the same shape for all.
        compute: prepared pictures ``[N, ...]`` to numbers ``[N, D]``.
        batch_size: pictures at once; the last batch may be smaller.

    Returns:
        An array ``[keyframes of the clip, D]`` for each clip; ``[0, 0]`` where it has none.
    """
    batches = [compute(batch) for batch in _batches(clips, prepare, batch_size)]
    if not batches:
        return [np.zeros((0, 0), np.float32) for _ in range(clips.num_rows)]
    values_ND = np.concatenate(batches).astype(np.float32)
    ends = np.cumsum(num_keyframes(clips))
    assert ends[-1] == len(values_ND), f"{len(values_ND)} results for {ends[-1]} keyframes"
    return np.split(values_ND, ends[:-1])


def _batches(
    clips: pa.Table, prepare: Callable[[Image.Image], NDArray[np.generic]], batch_size: int
) -> Iterator[NDArray[np.generic]]:
    """Prepared pictures in the order of the table."""
    batch: list[NDArray[np.generic]] = []
    for row in clips["keyframes"]:
        for data in row.as_py() or ():
            batch.append(prepare(open_keyframe(data)))
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)


def resize_and_crop(
    picture: Image.Image, *, short_side_px: int, crop_px: int, resample: Image.Resampling
) -> Image.Image:
    """Scale the short side, then cut the square in the middle: how ImageNet classifiers see."""
    scale = short_side_px / min(picture.size)
    width = max(crop_px, round(picture.width * scale))
    height = max(crop_px, round(picture.height * scale))
    resized = picture.resize((width, height), resample)
    left, top = (width - crop_px) // 2, (height - crop_px) // 2
    return resized.crop((left, top, left + crop_px, top + crop_px))


def reduced(
    values: list[NDArray[np.float32]], reduce: Callable[[NDArray[np.float32]], np.floating]
) -> pa.Array:
    """One float32 a clip from its keyframes' numbers; null where it has no keyframe."""
    return pa.array([float(reduce(v)) if v.size else None for v in values], pa.float32())
