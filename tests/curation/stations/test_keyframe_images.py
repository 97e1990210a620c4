"""Batches across clips."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.errors import TornPart
from curation.stations.keyframe_images import map_keyframes, open_keyframe, reduced, resize_and_crop


def encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_both_formats_of_the_decoding_pass_open_as_rgb(form):
    picture = open_keyframe(encoded(Image.new("RGB", (40, 30), (200, 100, 50)), form))
    assert picture.mode == "RGB"
    assert picture.size == (40, 30)
    assert np.abs(np.asarray(picture, int) - [200, 100, 50]).max() <= 4


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", encoded(Image.new("RGB", (9, 9)), "PNG")],
    ids=["empty", "text", "png"],
)
def test_anything_else_is_a_torn_part(data):
    with pytest.raises(TornPart):
        open_keyframe(data)


def test_a_cut_off_jpeg_is_a_torn_part():
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    with pytest.raises(TornPart):
        open_keyframe(data[: len(data) // 2])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_results_return_to_their_clips_whatever_the_batch_size(keyframe_clips, batch_size):
    levels = [[10, 60], [], [110], [], [160, 210, 250], []]
    clips = keyframe_clips([[Image.new("L", (8, 8), v) for v in row] for row in levels])
    sizes = []

    def brightness(pixels_NHWC):
        sizes.append(len(pixels_NHWC))
        return pixels_NHWC.mean(axis=(1, 2, 3))[:, None]

    means = map_keyframes(clips, prepare=np.asarray, compute=brightness, batch_size=batch_size)
    assert [np.rint(m[:, 0]).astype(int).tolist() if len(m) else [] for m in means] == levels
    assert all(size == batch_size for size in sizes[:-1])
    assert sum(sizes) == 6


def test_a_table_without_keyframes_runs_nothing(keyframe_clips):
    clips = keyframe_clips([[], []])
    assert [len(v) for v in map_keyframes(clips, prepare=len, compute=len, batch_size=4)] == [0, 0]
    assert map_keyframes(clips.slice(0, 0), prepare=len, compute=len, batch_size=4) == []


def test_the_crop_is_the_middle_of_the_short_side():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    square = resize_and_crop(
        Image.fromarray(pixels), short_side_px=50, crop_px=50, resample=Image.Resampling.NEAREST
    )
    assert square.size == (50, 50)
    assert np.asarray(square).min() == 255


def test_a_clip_without_keyframes_has_null():
    values = [np.array([[1.0], [3.0]], np.float32), np.zeros((0, 0), np.float32)]
    assert reduced(values, np.mean).equals(pa.array([2.0, None], pa.float32()))
