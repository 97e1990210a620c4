from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from training.data.picture import PAN_SHARE, converter, covering, moving_view, pixels, view
from training.data.random_numbers import generator


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (720, 1280, (320, 512), (320, 569)),
        (1080, 1920, (512, 512), (512, 910)),
        (100, 50, (64, 64), (128, 64)),
        (72, 128, (72, 128), (72, 128)),
    ],
    ids=["wider", "square", "taller", "same"],
)
def test_the_scaled_picture_just_covers_the_size(height, width, size, expected):
    assert covering(height, width, size) == expected


def test_a_random_crop_reaches_every_corner_and_stays_inside():
    corners = {
        view(80, 100, (72, 96), fit="patch", draw=generator(0, "crop", n)).corners[0]
        for n in range(800)
    }
    assert corners == {(top, left) for top in range(9) for left in range(5)}


def test_a_moving_crop_keeps_its_velocity_and_never_leaves_the_picture():
    ways = []
    for number in range(300):
        shown = moving_view(
            200, 300, (64, 64), fit="patch", num_frames=16, draw=generator(1, "crop", number)
        )
        at = np.array(shown.corners)
        assert at.shape == (16, 2)
        assert at.min() >= 0
        assert np.all(at.max(axis=0) <= (200 - 64, 300 - 64))
        line = np.linspace(at[0], at[-1], 16)
        assert np.abs(at - line).max() <= 1
        ways.append(at[-1] - at[0])
    ways = np.abs(np.array(ways)) / 64
    assert ways.max() <= PAN_SHARE + 1 / 64
    assert ways.max() > 0.9 * PAN_SHARE


def smooth_picture(height, width):
    """A picture in the middle of the range, smooth enough that filters agree on it."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + y / 29 + phase) for phase in (0, 2, 4)]
    return (128 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_pixels_are_those_that_pillow_scales_and_crops():
    picture = smooth_picture(144, 256)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    shown = view(144, 256, (64, 96), fit="cover", draw=None)
    ours = pixels(frame, shown, 0, converter())
    scaled = Image.fromarray(picture).resize((114, 64), Image.Resampling.BICUBIC)
    theirs = np.asarray(scaled)[:, 9:105]
    assert ours.shape == (64, 96, 3)
    assert np.abs(ours.astype(int) - theirs).mean() < 0.7


@pytest.mark.parametrize("rows", [480, 720], ids=["bt601", "bt709"])
def test_colours_without_a_word_on_them_are_bt601_below_hd_and_bt709_above(rows):
    # A flat frame of Y'CbCr by the standards' own equations: red, limited range.
    kr, kb = (0.299, 0.114) if rows == 480 else (0.2126, 0.0722)
    red = np.array([200, 40, 60]) / 255
    luma = kr * red[0] + (1 - kr - kb) * red[1] + kb * red[2]
    planes = [
        16 + 219 * luma,
        128 + 224 * (red[2] - luma) / (2 * (1 - kb)),
        128 + 224 * (red[0] - luma) / (2 * (1 - kr)),
    ]
    frame = av.VideoFrame(16 * rows // 9, rows, "yuv420p")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    shown = view(rows, frame.width, (64, 64), fit="cover", draw=None)
    rgb = pixels(frame, shown, 0, converter())
    assert (
        np.abs(rgb[32, 32].astype(int) - (200, 40, 60)).max() <= 4
    )  # the other matrix is off by 15


@pytest.mark.parametrize("scaled", [False, True])
def test_greys_keep_their_level(scaled):
    for luma in (16, 60, 126, 200, 235):
        frame = av.VideoFrame(128, 64, "yuv420p")
        for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        size = (32, 64) if scaled else (64, 128)
        rgb = pixels(frame, view(64, 128, size, fit="cover", draw=None), 0, converter())
        assert np.abs(rgb - (luma - 16) * 255 / 219).max() <= 1


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_film_is_upright(turn, tmp_path, encode_video, rotated):
    from training.data.reading import read_frames

    picture = smooth_picture(72, 128)
    film = encode_video(tmp_path / "a.mp4", [picture] * 8, fps=Fraction(8), options={"crf": "4"})
    data = rotated(film, tmp_path / "b.mp4", turn).read_bytes()
    upright = np.rot90(picture, -turn // 90)
    shown = view(*upright.shape[:2], upright.shape[:2], fit="cover", draw=None)
    read = read_frames(data, [0.5], shown)[0].permute(1, 2, 0).numpy()
    assert np.abs(read.astype(int) - upright).mean() < 4
