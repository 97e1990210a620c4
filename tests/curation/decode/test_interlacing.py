"""Films whose every movement is known: a textured picture under a moving window, in two fields."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from av import VideoFrame

from curation.decode.interlacing import FieldSample, Interlacing, field_sample, interlacing

SIZE = 480, 270
FAST, SLOW = 5.0, 1.5
"""Pixels from field to field: teeth at every edge, and movement without any."""
Pictures = list[Any]


@pytest.fixture
def moments(texture: Callable[..., Any]) -> Callable[..., Pictures]:
    """``moments(steps)``: luma of a picture that moves right by so many pixels from moment to moment."""
    wide_HW = texture("white", (SIZE[0] + 400, SIZE[1]))[..., 0]

    def make(steps: Sequence[float], noise: float = 0.0) -> Pictures:
        generator = np.random.default_rng(1)
        columns = np.arange(wide_HW.shape[1])
        pictures = []
        for left in np.cumsum(steps) % 400:
            at = np.arange(SIZE[0]) + left
            seen = np.array([np.interp(at, columns, line) for line in wide_HW])
            seen += generator.normal(0, noise, seen.shape) if noise else 0
            pictures.append(seen.clip(0, 255).astype(np.uint8))
        return pictures

    return make


def woven(upper: Any, lower: Any) -> Any:
    both = upper.copy()
    both[1::2] = lower[1::2]
    return both


def interlaced(pictures: Pictures) -> Pictures:
    return [woven(*pair) for pair in zip(pictures[::2], pictures[1::2], strict=True)]


def telecined(pictures: Pictures) -> Pictures:
    """3:2 pulldown: of four pictures five frames, two of them woven."""
    frames = []
    for a, b, c, d in zip(*(pictures[place::4] for place in range(4)), strict=True):
        frames += [a, b, woven(b, c), woven(c, d), d]
    return frames


def seen(frames: Pictures, *, first: int = 1, every: int = 7) -> Interlacing:
    """What a scene of these frames is called, from every seventh of them."""
    made = [VideoFrame.from_ndarray(luma_HW, "gray") for luma_HW in frames]
    looks = range(first, len(made), every)
    return interlacing([field_sample(n, made[n], made[n - 1]) for n in looks])


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_two_moments_in_every_frame_are_interlaced(moments, noise):
    assert seen(interlaced(moments([FAST] * 120, noise))) == "interlaced"


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_a_film_under_pulldown_is_telecined_wherever_it_is_looked_at(moments, first, noise):
    assert seen(telecined(moments([2 * FAST] * 64, noise)), first=first) == "telecined"


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_one_moment_a_frame_is_progressive_however_fast(moments, noise):
    assert seen(moments([2 * FAST] * 60, noise)) == "progressive"


def test_a_scene_that_moves_fast_only_now_and_then_is_interlaced_and_not_telecined(moments):
    # Of six frames that are looked at two are combs, as many as in film under pulldown.
    steps = [SLOW] * 28 + [FAST] * 28 + [SLOW] * 28
    assert seen(interlaced(moments(steps))) == "interlaced"


def striped(pictures: Pictures, *, width: int = SIZE[0], dy: int = 0) -> Pictures:
    """A shirt of stripes as fine as lines, so wide, in front of what moves; it moves down as well."""
    frames = []
    for number, picture_HW in enumerate(pictures):
        frame_HW = picture_HW.astype(int)
        lines = (np.arange(SIZE[1]) + dy * number) % 2 * 40
        left = 3 * number % (SIZE[0] - width + 1)
        frame_HW[20:250, left : left + width] += lines[20:250, None]
        frames.append(frame_HW.clip(0, 255).astype(np.uint8))
    return frames


@pytest.mark.parametrize("width", [150, SIZE[0]])
@pytest.mark.parametrize("dy", [0, 1, 2])
def test_stripes_as_fine_as_lines_are_no_combs(moments, width, dy):
    assert seen(striped(moments([2 * FAST] * 84), width=width, dy=dy)) == "progressive"


@pytest.mark.parametrize("narrow", [40, 96, 200])
def test_stripes_in_a_narrow_picture_are_no_combs_and_two_moments_are(moments, narrow):
    whole = moments([2 * FAST] * 84)
    assert seen([each[:, :narrow].copy() for each in striped(whole)]) == "progressive"
    halves = interlaced(moments([FAST] * 120))
    assert seen([each[:, :narrow].copy() for each in halves]) == "interlaced"


def test_a_shirt_of_stripes_in_two_fields_is_interlaced(moments):
    assert seen(interlaced(striped(moments([FAST] * 120), width=150))) == "interlaced"


def test_a_plain_object_whose_edges_are_seen_one_at_a_time_is_no_progressive_film():
    pictures = []
    for number in range(120):
        picture_HW = np.full(SIZE[::-1], 60, np.uint8)
        picture_HW[40:230, max(0, 4 * number - 300) : 4 * number + 1] = 200
        pictures.append(picture_HW)
    assert seen(interlaced(pictures), every=3) != "progressive"


def sample(index: int, is_comb: bool | None, *, is_flagged: bool = False) -> FieldSample:
    return FieldSample(index, is_flagged, is_comb)


@pytest.mark.parametrize(
    ("is_flagged", "kind"), [(True, "interlaced"), (False, "progressive")], ids=["flags", "none"]
)
def test_flags_count_where_nothing_moves(is_flagged, kind):
    assert interlacing([sample(n, None, is_flagged=is_flagged) for n in range(8)]) == kind


@pytest.mark.parametrize(
    ("is_flagged", "kind"), [(True, "interlaced"), (False, "progressive")], ids=["flags", "none"]
)
def test_flags_count_where_few_combs_are_seen_but_do_not_make_any(is_flagged, kind):
    combs = [sample(n, n == 5, is_flagged=is_flagged) for n in range(1, 11)]
    assert interlacing(combs) == kind
    clean = [sample(n, False, is_flagged=is_flagged) for n in range(1, 11)]
    assert interlacing(clean) == "progressive"


def test_the_first_frame_of_a_scene_is_not_compared_with_the_scene_before():
    samples = [sample(30, True), sample(37, False), sample(44, False), sample(51, False)]
    assert interlacing(samples, start=30) == "progressive"
    assert interlacing(samples, start=29) == "interlaced"
