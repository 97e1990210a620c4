from fractions import Fraction

import cv2
import numpy as np
import pytest
from av import VideoFrame

from curation.decode.blur import TILE_PX, blur_effect, scene_blur, tile_of
from curation.decode.decoding_pass import DecodeConfig, SourceRows, decode_source


@pytest.fixture(scope="module")
def detailed():
    """``detailed(width, height)``: luma with detail down to single pixels, each place another."""

    def make(width: int, height: int) -> np.ndarray:
        grain = np.random.default_rng(3).normal(0, 1, (height, width)).astype(np.float32)
        layers = [cv2.GaussianBlur(grain, (0, 0), sigma) * 20 * sigma for sigma in (0.6, 2, 8)]
        return np.clip(128 + sum(layers), 0, 255).astype(np.uint8)

    return make


def rows_of(film) -> SourceRows:
    with film.open("rb") as file:
        return decode_source(file, "0" * 64, DecodeConfig())


def test_the_effect_is_the_papers(detailed):
    def mean(picture, length, axis):
        reach = [(length // 2,) * 2 if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(picture, reach, "symmetric")
        size = picture.shape[axis]
        return sum(np.take(padded, range(k, k + size), axis) for k in range(length)) / length

    luma = detailed(40, 30)
    first = mean(mean(luma.astype(float), 3, 0), 3, 1)
    by_axis = []
    for axis in (0, 1):
        # Equations 1 to 6: a mean of nine, differences, what they lose, as a share.
        before = np.abs(np.diff(first, axis=axis))
        lost = np.maximum(0, before - np.abs(np.diff(mean(first, 9, axis), axis=axis)))
        by_axis.append((before.sum() - lost.sum()) / before.sum())
    assert blur_effect(luma) == pytest.approx(max(by_axis), abs=1e-5)


def test_the_effect_rises_with_every_blur_in_one_direction_or_both(detailed):
    luma = detailed(160, 160)
    round_about = [blur_effect(cv2.GaussianBlur(luma, (0, 0), s)) for s in (0.5, 1, 2, 4, 6)]
    sideways = [blur_effect(cv2.blur(luma, (length, 1))) for length in (1, 3, 7, 15)]
    assert round_about == sorted(round_about)
    assert sideways == sorted(sideways)
    assert round_about[0] < 0.4 < 0.85 < round_about[-1]


def test_squares_go_round_the_picture_and_plain_ones_are_left_out(detailed):
    luma = detailed(960, 540)
    frame = VideoFrame.from_ndarray(luma, format="gray")
    first, second = tile_of(frame, 0), tile_of(frame, 1)
    assert first is not None
    assert second is not None
    assert np.array_equal(first, luma[10 : 10 + TILE_PX, 80 : 80 + TILE_PX])
    assert np.array_equal(second, luma[10 : 10 + TILE_PX, 400 : 400 + TILE_PX])
    assert np.array_equal(tile_of(frame, 9), first)
    assert tile_of(VideoFrame.from_ndarray(np.full_like(luma, 90), format="gray"), 0) is None


@pytest.mark.parametrize("layout", ["yuv420p", "yuv420p10le", "rgb24", "gbrp"])
def test_the_square_is_the_same_in_every_layout_of_a_grey_picture(detailed, layout):
    luma = detailed(64, 48)
    frame = VideoFrame.from_ndarray(np.repeat(luma[..., None], 3, axis=2), format="rgb24")
    tile = tile_of(frame.reformat(format=layout), 0)
    assert tile is not None
    assert blur_effect(tile) == pytest.approx(blur_effect(luma), abs=0.03)


def test_what_is_out_of_focus_beside_something_sharp_does_not_count():
    assert scene_blur([0.3, 0.3, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]) == pytest.approx(0.3)
    assert scene_blur([]) is None


@pytest.fixture(scope="module")
def degraded(detailed, encode_video, tmp_path_factory):
    """``degraded(sigma, crf)``: columns of a film of the same picture, blurred and compressed."""
    folder = tmp_path_factory.mktemp("degraded")
    picture = detailed(704, 396)

    def make(sigma: float, crf: int) -> dict:
        worse = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture
        frames = (
            np.repeat(worse[index : index + 360, index : index + 640, None], 3, axis=2)
            for index in range(36)
        )
        path = folder / f"{sigma}-{crf}.mp4"
        options = {"preset": "veryfast", "threads": "1", "crf": str(crf)}
        (scene,) = rows_of(encode_video(path, frames, options=options)).scenes
        return scene

    return make


def test_a_film_has_more_blur_the_more_it_was_blurred(degraded):
    blurs = [degraded(sigma, 18)["blur"] for sigma in (0, 1, 2, 4)]
    assert blurs == sorted(blurs)
    assert blurs[-1] - blurs[0] > 0.3


def test_a_film_has_fewer_bits_the_harder_it_was_compressed(degraded):
    scenes = [degraded(0, crf) for crf in (12, 23, 34, 45)]
    bits = [scene["bits_per_pixel"] for scene in scenes]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > 5 * bits[-1]
    assert scenes[-1]["blur"] > scenes[0]["blur"]


def test_bits_are_those_of_the_packets(make_video, tmp_path):
    import av

    film = make_video(tmp_path / "film.mkv", [("red", 48)])
    with av.open(str(film)) as container:
        total = sum(packet.size for packet in container.demux(video=0))
    (scene,) = rows_of(film).scenes
    assert scene["bits_per_pixel"] == pytest.approx(8 * total / 48 / 320 / 180)


def test_where_packets_have_no_times_nothing_is_said_of_bits(make_video, tmp_path):
    film = make_video(tmp_path / "film.avi", [("red", 48)], codec="mpeg4", fps=Fraction(24))
    (scene,) = rows_of(film).scenes
    assert scene["bits_per_pixel"] is None
    assert scene["blur"] is not None
