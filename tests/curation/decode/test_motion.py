from collections.abc import Callable

import cv2
import numpy as np
import pytest

from curation.decode.motion import FlowMeter, Pair, luma_change, scene_motion


def luma_of(texture: Callable[..., np.ndarray], shift_px: int) -> np.ndarray:
    """A 256x144 window into a large texture, moved right by ``shift_px``."""
    grey = cv2.cvtColor(texture("white", (400, 220)), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(grey[40:184, 100 + shift_px : 356 + shift_px])


@pytest.mark.parametrize(("shift_px", "seconds"), [(2, 0.5), (6, 0.5), (20, 0.5), (6, 0.25)])
def test_speed_of_a_shifted_texture_is_its_shift_in_short_sides_a_second(
    texture, shift_px, seconds
):
    meter = FlowMeter()
    assert meter.push(0, 0.0, luma_of(texture, 0)) is None
    pair = meter.push(12, seconds, luma_of(texture, shift_px))
    assert pair is not None
    assert pair.speed == pytest.approx(shift_px / 144 / seconds, rel=0.03)


def test_a_still_picture_has_no_speed_and_counts_as_still(texture):
    meter = FlowMeter()
    meter.push(0, 0.0, luma_of(texture, 0))
    pair = meter.push(12, 0.5, luma_of(texture, 0))
    assert pair is not None
    assert pair.speed < 0.002
    assert scene_motion([pair])["still_share"] == 1.0


def test_a_picture_too_small_for_flow_counts_as_without_speed():
    meter = FlowMeter()
    meter.push(0, 0.0, np.zeros((8, 8), np.uint8))
    pair = meter.push(1, 0.5, np.full((8, 8), 255, np.uint8))
    assert pair == Pair(0, 1, 0.0, 255.0)


def test_luma_change_is_the_mean_absolute_difference():
    first, second = np.full((4, 4), 10, np.uint8), np.full((4, 4), 10, np.uint8)
    second[0] = 30
    assert luma_change(first, second) == 5.0


def test_quantiles_are_over_pairs():
    pairs = [Pair(i, i + 1, float(i), 10.0) for i in range(11)]
    assert scene_motion(pairs) == {
        "motion_mean": 5.0,
        "motion_p10": 1.0,
        "motion_p50": 5.0,
        "motion_p90": 9.0,
        "still_share": 0.0,
    }


def test_a_scene_without_a_pair_has_no_motion_rather_than_none_at_all():
    assert set(scene_motion([]).values()) == {None}
