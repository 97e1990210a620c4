from fractions import Fraction

import numpy as np
import pytest

from curation.decode.picture import (
    analysis_size,
    black_rim,
    border_share,
    luma,
    picture_sample,
    scene_picture,
)


def sample_of(picture_HWC: np.ndarray):
    return picture_sample(0, picture_HWC, luma(picture_HWC))


@pytest.mark.parametrize(
    ("coded", "aspect", "size"),
    [
        ((1280, 720), Fraction(1), (256, 144)),
        ((720, 1280), Fraction(1), (144, 256)),
        ((3840, 2160), Fraction(1), (256, 144)),
        ((64, 48), Fraction(1), (64, 48)),
        ((720, 576), Fraction(64, 45), (256, 144)),  # anamorphic 16:9: pixels made square
        ((8000, 100), Fraction(1), (1152, 100)),
    ],
)
def test_analysis_picture_has_square_pixels_and_a_short_side_of_at_most_144(coded, aspect, size):
    assert analysis_size(*coded, aspect) == size


def test_brightness_and_contrast_are_mean_and_deviation_of_luma():
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:5] = 200
    sample = sample_of(picture)
    assert sample.brightness == 100.0
    assert sample.contrast == 100.0
    assert sample.dark_share == 0.5
    assert sample.bright_share == 0.0


def test_luma_weighs_colours_as_bt601():
    blue_green_red = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(blue_green_red).tolist() == [[29, 150, 76]]  # 0.114, 0.587, 0.299 of 255


def test_saturation_is_the_distance_of_the_colours_from_each_other():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    assert sample_of(red).saturation == 1.0
    assert sample_of(np.full((4, 4, 3), 90, np.uint8)).saturation == 0.0


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur(texture):
    import cv2

    sharp = texture("white", (256, 144))
    grey = luma(sharp).astype(np.float64)
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    )
    assert sample_of(sharp).sharpness == pytest.approx(laplacian.var())
    assert sample_of(cv2.GaussianBlur(sharp, (0, 0), 3)).sharpness < 0.5 * laplacian.var()


def test_rim_of_a_letterboxed_picture_is_its_bars(texture):
    picture = np.zeros((144, 256, 3), np.uint8)
    picture[18:130, 10:250] = np.maximum(texture("white", (240, 112)), 60)
    assert black_rim(luma(picture)) == (18, 14, 10, 6)


def test_a_dark_sky_with_stars_is_no_rim():
    night = np.full((144, 256), 4, np.uint8)
    night[::5, ::7] = 180
    assert sum(black_rim(night)) < 20


def test_border_is_what_is_black_in_every_frame():
    assert border_share([(18, 18, 0, 0), (40, 18, 0, 0)], (256, 144)) == pytest.approx(36 / 144)
    assert border_share([(144, 0, 0, 0), (0, 0, 0, 0)], (256, 144)) == 0.0
    assert border_share([(144, 0, 0, 0)], (256, 144)) == 1.0


def test_scene_values_are_means_over_frames_and_null_without_one():
    dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    columns = scene_picture([sample_of(dark), sample_of(light)], (8, 8))
    assert columns["brightness_mean"] == 127.5
    assert columns["dark_share"] == columns["bright_share"] == 0.5
    assert set(scene_picture([], (8, 8)).values()) == {None}
