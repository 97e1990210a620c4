"""Black bars are found by the decoding pass and cut off by the export, upright, in square pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.decode.picture import picture_area
from curation.decode.scenes import SceneConfig
from curation.export.clips import Clip, ExportConfig, cut
from curation.export.clips.settings import ADMITTED
from curation.media.colour import Colour
from curation.media.guard import Guard
from curation.media.orientation import UPRIGHT, Orientation

SHORT = DecodeConfig(scenes=SceneConfig(min_s=0.1, min_frames=2, trim_frames=0))
CROP = ExportConfig(x264_preset="ultrafast", crf=4, crop_borders=True)


@pytest.fixture(scope="module")
def barred(
    scene_frames: Callable[..., Iterator[np.ndarray]],
) -> Callable[..., Iterator[np.ndarray]]:
    """``barred(top, bottom, left, right)``: 24 frames of 320x240 with bars of these widths."""

    def frames(top: int, bottom: int, left: int, right: int) -> Iterator[np.ndarray]:
        for frame_HWC in scene_frames("white", 24, size=(320, 240)):
            seen_HWC = np.zeros_like(frame_HWC)
            inside = slice(top, 240 - bottom), slice(left, 320 - right)
            seen_HWC[inside] = np.maximum(frame_HWC, 70)[inside]
            yield seen_HWC

    return frames


def measured(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with path.open("rb") as file:
        rows = decode_source(file, "0" * 64, SHORT)
    (scene,) = rows.scenes
    return scene, rows.probe


def cropped(path: Path, tmp_path: Path, config: ExportConfig = CROP) -> list[np.ndarray]:
    """Frames of the clip, RGB."""
    scene, probe = measured(path)
    clip = Clip(
        container=probe["container"],
        start_pts=scene["start_pts"],
        end_pts=scene["end_pts"],
        time_base=Fraction(scene["time_base_num"], scene["time_base_den"]),
        num_frames=scene["num_frames"],
        width=scene["width"],
        height=scene["height"],
        area=tuple(scene["picture_area"]),
        colour=Colour.of_text(scene["colour"]),
        pixel_format=probe["pixel_format"],
    )
    guard = Guard(ADMITTED)
    try:
        with path.open("rb") as file:
            media = cut(file, clip, config, guard, tmp_path)
    finally:
        guard.close()
    if media.extension == "jpg":
        return [np.asarray(Image.open(io.BytesIO(media.data)))]
    with av.open(io.BytesIO(media.data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("bars", "area"),
    [
        ((40, 40, 0, 0), (0, 44, 320, 152)),
        ((0, 0, 50, 50), (54, 0, 212, 240)),
        ((30, 34, 0, 0), (0, 32, 320, 170)),
    ],
)
def test_pairs_of_bars_are_cut_off_to_the_last_line(barred, encode_video, tmp_path, bars, area):
    film = encode_video(tmp_path / "bars.mp4", barred(*bars))
    scene, _ = measured(film)
    top, bottom, left, right = bars
    found = scene["picture_area"]
    # Inside the bars, and at most two lines of the analysis picture, of 144, are lost.
    assert left <= found[0] <= area[0]
    assert top <= found[1] <= area[1]
    assert found[0] + found[2] <= 320 - right
    assert found[1] + found[3] <= 240 - bottom
    assert found[2] >= area[2] - 2
    assert found[3] >= area[3] - 2
    frames = cropped(film, tmp_path)
    assert len(frames) == 24
    assert frames[0].shape == (found[3], found[2], 3)
    assert min(frame[edge].mean() for frame in frames for edge in (0, -1)) > 50
    assert min(frame[:, edge].mean() for frame in frames for edge in (0, -1)) > 50
    given = list(barred(*bars))[5][found[1] : found[1] + found[3], found[0] : found[0] + found[2]]
    assert np.abs(frames[5].astype(int) - given).mean() < 6


@pytest.mark.parametrize("bars", [(0, 0, 0, 0), (60, 0, 0, 0), (60, 30, 0, 0)])
def test_a_picture_without_a_pair_of_bars_is_kept_whole(barred, encode_video, tmp_path, bars):
    film = encode_video(tmp_path / "sky.mp4", barred(*bars))
    assert measured(film)[0]["picture_area"] == [0, 0, 320, 240]


def test_bars_of_a_film_that_is_turned_and_has_wide_pixels(barred, encode_video, rotated, tmp_path):
    wide = encode_video(tmp_path / "wide.mp4", barred(40, 40, 0, 0), sample_aspect=Fraction(3, 2))
    turned = rotated(wide, tmp_path / "turned.mp4", 90)
    scene, _ = measured(turned)
    assert (scene["width"], scene["height"]) == (240, 480)
    left, top, width, height = scene["picture_area"]
    assert (top, height) == (0, 480)
    assert 40 <= left <= 44
    assert 152 <= width <= 160
    frames = cropped(turned, tmp_path)
    assert frames[0].shape == (height, width, 3)
    assert min(frame[:, edge].mean() for frame in frames for edge in (0, -1)) > 50


def test_bars_of_a_still_image_go_and_its_size_is_held_to_the_limit(barred, tmp_path):
    path = tmp_path / "still.jpg"
    Image.fromarray(next(barred(40, 40, 0, 0))).save(path, quality=95)
    (picture,) = cropped(path, tmp_path)
    assert picture.shape[1] == 320
    assert 152 <= picture.shape[0] <= 160
    assert min(picture[0].mean(), picture[-1].mean()) > 50
    small = ExportConfig(crop_borders=True, max_short_side_px=100)
    assert cropped(path, tmp_path, small)[0].shape[0] == 100


def test_sides_go_round_with_the_picture():
    rims, size = [(0, 0, 20, 20)], (256, 144)
    assert picture_area(rims, size, (256, 144), UPRIGHT) == [22, 0, 212, 144]
    assert picture_area(rims, size, (144, 256), Orientation(False, 90)) == [0, 22, 144, 212]
    uneven = [(18, 20, 0, 0)]
    assert picture_area(uneven, size, (256, 144), Orientation(False, 180)) == [0, 22, 256, 102]


def test_cutting_off_bars_and_copying_packets_do_not_go_together():
    with pytest.raises(ValueError, match="crop_borders needs cut exact"):
        ExportConfig(cut="copy", crop_borders=True)
