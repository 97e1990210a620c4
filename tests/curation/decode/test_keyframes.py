import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from av import VideoFrame
from PIL import Image

from curation.decode.keyframes import (
    Candidate,
    Candidates,
    KeyframeConfig,
    inside_borders,
    jpeg,
    keyframe_size,
    perceptual_hash,
    spread,
)


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def unchanged(frame: Any) -> Any:
    return frame


def held(
    num: int,
    *,
    num_recent: int = 10,
    num_old: int = 64,
    max_bytes: int = 1 << 20,
    shrink: Callable[[Any], Any] = unchanged,
) -> Candidates:
    candidates = Candidates(num_recent=num_recent, num_old=num_old, max_bytes=max_bytes)
    for index in range(num):
        candidates.add(Candidate(index, VideoFrame(32, 32, "gray"), shrink))
    return candidates


def test_spread_takes_the_middles_of_equal_parts():
    assert spread(8, 80) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert spread(8, 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert spread(8, 3) == [0, 1, 2]
    assert spread(8, 0) == []


@pytest.mark.parametrize("num", [100, 1000, 20_000])
def test_candidates_stay_few_and_evenly_spaced_however_long_the_scene(num):
    candidates = held(num)
    assert len(candidates) <= 74
    taken = [each.index for each in candidates.take(0, num, num_wanted=8)]
    middles = [(part + 0.5) * num / 8 for part in range(8)]
    assert taken == pytest.approx(middles, abs=num / 16)


def test_a_cut_that_is_reported_late_leaves_the_next_scene_all_its_candidates():
    candidates = held(1000, num_recent=20)
    candidates.take(0, 985, num_wanted=8)
    assert [each.index for each in candidates.take(985, 1000, num_wanted=8)] == [
        985 + place for place in spread(8, 15)
    ]


def test_what_lies_between_two_scenes_goes_to_neither():
    candidates = held(30)
    assert [each.index for each in candidates.take(0, 10, num_wanted=99)] == list(range(10))
    assert [each.index for each in candidates.take(20, 30, num_wanted=99)] == list(range(20, 30))


@pytest.mark.parametrize(("room", "num_shrunk"), [(30, 8), (10, 23)])
def test_frames_are_made_small_where_they_are_asked_for_or_too_much_is_held(room, num_shrunk):
    shrunk: list[VideoFrame] = []

    def shrink(frame: VideoFrame) -> VideoFrame:
        shrunk.append(frame)
        return frame

    candidates = held(30, num_recent=30, max_bytes=room * 32 * 32, shrink=shrink)
    assert len(shrunk) == 30 - room
    for candidate in candidates.take(0, 30, num_wanted=8):
        assert candidate.small() is candidate.small()
    assert len(shrunk) == num_shrunk


@pytest.mark.parametrize(
    ("coded", "aspect", "size"),
    [
        ((1920, 1080), Fraction(1), (682, 384)),
        ((1080, 1920), Fraction(1), (384, 682)),
        ((320, 180), Fraction(1), (320, 180)),
        ((720, 576), Fraction(64, 45), (682, 384)),
    ],
)
def test_keyframes_have_square_pixels_and_are_never_enlarged(coded, aspect, size):
    assert keyframe_size(*coded, aspect, short_side_px=384) == size


def test_jpeg_is_the_picture_again_and_the_same_bytes_each_time(texture):
    picture = texture("teal", (320, 180))
    data = jpeg(picture, quality=90)
    again = np.asarray(Image.open(io.BytesIO(data)), int)[..., ::-1]
    assert np.abs(again - picture).mean() < 2
    assert jpeg(picture, quality=90) == data


def test_hash_bits_say_which_dct_coefficients_lie_over_their_median(texture):
    picture = texture("white", (32, 32))
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.float64)
    # DCT-II by its definition, orthonormal, for frequencies 1 to 8.
    frequency, place = np.meshgrid(np.arange(1, 9), np.arange(32), indexing="ij")
    basis = np.sqrt(2 / 32) * np.cos(np.pi * (2 * place + 1) * frequency / 64)
    coefficients = basis @ grey @ basis.T
    bits = (coefficients > np.median(coefficients)).reshape(-1)
    assert perceptual_hash(picture) == sum(1 << place for place, bit in enumerate(bits) if bit)


def test_hash_of_a_near_copy_differs_in_few_bits_and_of_another_picture_in_many(texture):
    picture = texture("white", (640, 360))
    original = perceptual_hash(picture)
    smaller = cv2.resize(picture, (320, 180), interpolation=cv2.INTER_AREA)
    worse = np.asarray(Image.open(io.BytesIO(jpeg(picture, quality=30))))[..., ::-1]
    brighter = np.clip(picture.astype(int) * 0.8 + 25, 0, 255).astype(np.uint8)
    for copy in (smaller, worse, brighter):
        assert distance(original, perceptual_hash(copy)) <= 4
    for look in ("white/2", "white/3", "white/4"):
        assert distance(original, perceptual_hash(texture(look, (640, 360)))) >= 16


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="jpeg_quality must be 1 to 95, got 100"):
        KeyframeConfig(jpeg_quality=100)


def scenery(seed: int, height: int = 180, width: int = 320) -> np.ndarray:
    """A picture with structure of all sizes, nowhere black."""
    small = np.random.default_rng(seed).integers(60, 255, (9, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def framed(picture: np.ndarray, *, top: int, bottom: int, sides: int = 0) -> np.ndarray:
    return cv2.copyMakeBorder(picture, top, bottom, sides, sides, cv2.BORDER_CONSTANT)


@pytest.mark.parametrize(("bars", "sides"), [(30, 0), (0, 53), (24, 40)])
def test_the_hash_between_bars_is_that_of_the_picture_without_them(bars, sides):
    pictures = [scenery(seed) for seed in range(3)]
    boxed = [framed(each, top=bars, bottom=bars, sides=sides) for each in pictures]
    black = np.zeros_like(boxed[0])
    inside = inside_borders([*boxed, black])
    for picture, box in zip(pictures, boxed, strict=True):
        assert perceptual_hash(box[inside]) == perceptual_hash(picture)
        assert distance(perceptual_hash(box), perceptual_hash(picture)) > 6


def test_what_is_black_on_one_side_or_in_one_picture_only_is_no_bar():
    picture = scenery(0)
    whole = (slice(0, 180), slice(0, 320))
    assert inside_borders([picture]) == whole
    assert inside_borders([np.zeros_like(picture)]) == whole
    floor = framed(picture[:140], top=0, bottom=40)
    assert inside_borders([floor, floor]) == whole
    fade = framed(picture[40:140], top=40, bottom=40)
    assert inside_borders([fade, picture]) == whole
    line = framed(picture[2:178], top=2, bottom=2)
    assert inside_borders([line]) == whole
