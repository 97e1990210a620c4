from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curation.decode.camera import CameraFit, Moved, fit, scene_camera, texture
from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.decode.motion import FlowMeter
from curation.media.orientation import UPRIGHT, Orientation

Luma = NDArray[np.uint8]
FPS, STRIDE, SIZE = 24, 12, (256, 144)
EVERYWHERE = np.ones((9, 16), np.float32)


def similarity(right: float, down: float, grow: float, turn: float) -> NDArray[np.float32]:
    """The flow, in pixels, of a picture of 256x144 by the equation: ``[144, 256, 2]``."""
    x_HW, y_HW = np.meshgrid((np.arange(256) - 127.5) / 144, (np.arange(144) - 71.5) / 144)
    u_HW = right + grow * x_HW - turn * y_HW
    v_HW = down + grow * y_HW + turn * x_HW
    return (144 * np.stack([u_HW, v_HW], axis=-1)).astype(np.float32)


def filmed(
    picture_HW: Luma, at: Callable[[float], tuple[float, float, float, float]]
) -> list[Luma]:
    """60 frames through a camera over a picture of 1280x720.

    Args:
        at: place of the middle, in short sides to the right and down, zoom and clockwise roll of the
            camera, by seconds from the middle of the film.
    """
    frames = []
    for index in range(60):
        right, down, zoom, roll = at(index / FPS - 1.25)
        scale = 2.5 / zoom
        cos, sin = math.cos(roll) * scale, math.sin(roll) * scale
        turn = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([640 + right * 360, 360 + down * 360]) - turn @ np.array([127.5, 71.5])
        matrix = np.hstack([turn, middle[:, None]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(picture_HW, matrix, SIZE, flags=flags))
    return frames  # type: ignore[return-value]


def measured(
    frames: Sequence[Luma], orientation: Orientation = UPRIGHT
) -> dict[str, float | str | None]:
    """Camera columns of a scene of these frames, sampled twice a second."""
    meter, ways, moments = FlowMeter(), [], []
    for index, luma_HW in enumerate(frames):
        if index % STRIDE == 0:
            pair = meter.push(index, index / FPS, luma_HW)
            ways += [Moved(pair.first, pair.second, pair.camera)] if pair else []
        elif index % STRIDE == 1:
            moment = meter.follow(index, index / FPS, luma_HW)
            moments += [moment] if moment else []
    return scene_camera(ways, moments, SIZE, orientation)


@pytest.fixture(scope="module")
def scenery(texture: Callable[..., NDArray[np.uint8]]) -> Luma:
    """A picture of 1280x720 with structure of all sizes."""
    coarse = cv2.cvtColor(texture("white", (1280, 720)), cv2.COLOR_RGB2GRAY).astype(np.float32)
    grain = np.random.default_rng(7).normal(0, 1, (720, 1280)).astype(np.float32)
    leaves = sum(cv2.GaussianBlur(grain, (0, 0), sigma) * 12 * sigma for sigma in (3, 6))
    return np.clip(coarse + leaves, 0, 255).astype(np.uint8)


def test_a_similarity_is_found_again_in_its_flow():
    found = fit(similarity(0.06, -0.03, 0.05, 0.02), EVERYWHERE, 0.5)
    assert found is not None
    assert (found.right, found.down) == pytest.approx((0.12, -0.06), abs=1e-3)
    assert (found.grow, found.turn) == pytest.approx((0.1, 0.04), abs=2e-3)
    assert found.following == pytest.approx(1)
    assert found.rest < 1e-3


def test_what_moves_through_a_third_of_the_picture_is_not_the_camera():
    flow = similarity(0.05, 0, 0, 0)
    flow[:, :80] = (-20, 10)  # 5 of 16 columns
    found = fit(flow, EVERYWHERE, 0.5)
    assert found is not None
    assert found.right == pytest.approx(0.1, abs=0.005)
    assert found.following == pytest.approx(11 / 16)
    # These places are left with the distance of the two movements.
    assert found.rest == pytest.approx(math.hypot(-20 - 7.2, 10) / 144 / 0.5 * 5 / 16, rel=0.02)


def test_a_plain_picture_says_nothing_of_the_camera():
    weight_HW = texture(np.full((144, 256), 90, np.uint8), (16, 9))
    assert fit(similarity(0.1, 0, 0, 0), weight_HW, 0.5) is None
    assert set(scene_camera([Moved(0, 12, None)], [], SIZE, UPRIGHT).values()) == {None}


@pytest.mark.parametrize("speed", [0.04, 0.15, 0.6])
@pytest.mark.parametrize(
    ("word", "at"),
    [
        ("pan_right", lambda way: (way, 0, 1, 0)),
        ("pan_left", lambda way: (-way, 0, 1, 0)),
        ("tilt_down", lambda way: (0, way, 1, 0)),
        ("tilt_up", lambda way: (0, -way, 1, 0)),
        ("zoom_in", lambda way: (0, 0, math.exp(way), 0)),
        ("zoom_out", lambda way: (0, 0, math.exp(-way), 0)),
        ("roll_clockwise", lambda way: (0, 0, 1, way)),
        ("roll_counterclockwise", lambda way: (0, 0, 1, -way)),
    ],
)
def test_camera_moves_are_called_by_their_names(scenery, word, at, speed):
    columns = measured(filmed(scenery, lambda seconds: at(speed * seconds)))
    assert columns["camera_motion"] == word
    if word.startswith(("pan", "tilt")):
        assert columns["camera_speed"] == pytest.approx(speed, rel=0.05)


def test_a_fixed_camera_is_static_whatever_walks_through_the_picture(scenery):
    frames = filmed(scenery, lambda seconds: (0, 0, 1, 0))
    assert measured(frames)["camera_motion"] == "static"
    for index, frame in enumerate(frames):
        frame[40:120, 2 * index : 2 * index + 60] = scenery[300:380, 200:260]
    columns = measured(frames)
    assert columns["camera_motion"] == "static"
    # 60 of 256 columns, 80 of 144 rows, 48 px/s.
    assert columns["object_motion"] == pytest.approx(48 / 144 * 60 / 256 * 80 / 144, rel=0.4)


def test_a_shaken_camera_is_told_from_a_steady_one_by_its_moments(scenery):
    shaken = measured(
        filmed(
            scenery,
            lambda s: (0.02 * math.sin(27 * s), 0.02 * math.sin(32 * s + 1), 1, 0),
        )
    )
    panned = measured(filmed(scenery, lambda s: (0.2 * s, 0, 1, 0)))
    assert shaken["camera_motion"] == "shake"
    assert panned["camera_shake"] < 0.05 < 0.2 < shaken["camera_shake"]


@pytest.mark.parametrize(
    ("orientation", "word"),
    [
        (Orientation(False, 90), "tilt_down"),
        (Orientation(False, 180), "pan_left"),
        (Orientation(False, 270), "tilt_up"),
        (Orientation(True, 0), "pan_left"),
        (Orientation(True, 90), "tilt_up"),
    ],
)
def test_directions_are_those_of_the_film_as_it_is_shown(scenery, orientation, word):
    panned = filmed(scenery, lambda seconds: (0.15 * seconds, 0, 1, 0))
    assert measured(panned, orientation)["camera_motion"] == word


def test_a_way_that_cannot_be_followed_is_told_by_its_moment():
    lost = CameraFit(0.9, 0, 0, 0, following=0.1, rest=0.5)
    swept = CameraFit(-0.8, 0, 0, 0, following=0.9, rest=0.02)
    ways = [Moved(n, n + 12, lost) for n in (0, 12, 24)]
    moments = [Moved(n, n + 1, swept) for n in (0, 12, 24)]
    columns = scene_camera(ways, moments, SIZE, UPRIGHT)
    assert columns["camera_motion"] == "pan_right"
    assert columns["camera_speed"] == pytest.approx(0.8)
    assert scene_camera(ways, [], SIZE, UPRIGHT)["camera_motion"] == "mixed"


def test_the_pass_says_how_the_camera_of_a_film_moves(scenery, encode_video, tmp_path):
    luma = filmed(scenery, lambda seconds: (0.15 * seconds, 0, 1, 0))
    film = encode_video(
        tmp_path / "pan.mp4", (np.repeat(f[..., None], 3, axis=2) for f in luma), fps=FPS
    )
    with film.open("rb") as file:
        rows = decode_source(file, "0" * 64, DecodeConfig())
    (scene,) = rows.scenes
    assert scene["camera_motion"] == "pan_right"
    assert scene["camera_speed"] == pytest.approx(0.15, rel=0.05)
