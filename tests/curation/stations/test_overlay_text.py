"""Text boxes from a map made by hand, and the real detector on text of known place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from curation.stations.overlay_text import (
    OverlayText,
    OverlayTextConfig,
    detector_input,
    text_boxes,
    union_share,
)
from curation.stations.station import check_output
from curation.weights.catalog import BIG_BUCK_BUNNY_TRAILER, PPOCR_TEXT_DETECTOR

SETTINGS = OverlayTextConfig()


def heart_map(*hearts: tuple[int, int, int, int], level: float = 0.9) -> np.ndarray:
    """A map 200 x 300 with ``level`` inside (left, top, right, bottom), ends not included."""
    probability_HW = np.zeros((200, 300), np.float32)
    for left, top, right, bottom in hearts:
        probability_HW[top:bottom, left:right] = level
    return probability_HW


def test_a_heart_grows_by_area_times_ratio_over_perimeter():
    (box,) = text_boxes(heart_map((100, 50, 201, 71)), SETTINGS)
    # Pixel centres span 100 x 20: A = 2000, L = 240, D = 2000 * 1.4 / 240.
    grown = 2000 * 1.4 / 240
    np.testing.assert_allclose(box.min(axis=0), [100 - grown, 50 - grown], atol=0.01)
    np.testing.assert_allclose(box.max(axis=0), [200 + grown, 70 + grown], atol=0.01)


def test_a_heart_is_grown_as_a_polygon_offset_would():
    pyclipper = pytest.importorskip("pyclipper")
    (box,) = text_boxes(heart_map((100, 50, 201, 71)), SETTINGS)
    offset = pyclipper.PyclipperOffset()
    corners = [(100, 50), (200, 50), (200, 70), (100, 70)]
    offset.AddPath(
        [(x * 1000, y * 1000) for x, y in corners],
        pyclipper.JT_ROUND,
        pyclipper.ET_CLOSEDPOLYGON,
    )
    (path,) = offset.Execute(1000 * 2000 * 1.4 / 240)
    np.testing.assert_allclose(box.min(axis=0), np.min(path, axis=0) / 1000, atol=0.02)
    np.testing.assert_allclose(box.max(axis=0), np.max(path, axis=0) / 1000, atol=0.02)


def test_faint_hearts_and_specks_are_no_text():
    assert text_boxes(heart_map((100, 50, 200, 70), level=0.5), SETTINGS) == []
    assert text_boxes(heart_map((100, 50, 200, 52)), SETTINGS) == []
    assert text_boxes(heart_map(), SETTINGS) == []


def test_overlapping_boxes_count_once():
    box = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32)
    assert union_share([box], height=20, width=20) == pytest.approx(0.25)
    assert union_share([box, box], height=20, width=20) == pytest.approx(0.25)
    lower = np.asarray([0, 5], np.float32) + box
    assert union_share([box, lower], height=20, width=20) == pytest.approx(150 / 400)
    assert union_share([], height=20, width=20) == 0.0


def test_the_input_keeps_the_shape_in_steps_of_32_and_is_bgr():
    pixels = detector_input(Image.new("RGB", (683, 384), (255, 0, 0)), long_side_px=320)
    assert pixels.shape == (1, 3, 192, 320)
    np.testing.assert_allclose(pixels[0, 0, 0, 0], -0.485 / 0.229, rtol=1e-5)
    np.testing.assert_allclose(pixels[0, 2, 0, 0], (1 - 0.406) / 0.225, rtol=1e-5)
    assert detector_input(Image.new("RGB", (64, 64)), long_side_px=640).shape == (1, 3, 64, 64)


@pytest.fixture(scope="module")
def station(real_weight) -> OverlayText:
    real_weight(PPOCR_TEXT_DETECTOR)
    station = OverlayText()
    station.setup()
    return station


@pytest.mark.embedded
def test_the_share_of_rendered_text_is_that_of_its_box(station, keyframe_clips, noise_picture):
    plain = noise_picture(3, (640, 360))
    titled = plain.copy()
    pen = ImageDraw.Draw(titled)
    font = ImageFont.load_default(size=40)
    box = pen.textbbox((120, 250), "a night in the city", font=font)
    pen.text((120, 250), "a night in the city", fill="white", font=font)
    share = (box[2] - box[0]) * (box[3] - box[1]) / (640 * 360)
    clips = keyframe_clips([[titled, plain], [], [plain]])
    added = station(clips)
    check_output(station, clips, added)
    assert added["text_area_max"][0].as_py() == pytest.approx(share, rel=0.5)
    assert added["text_area_share"][0].as_py() == pytest.approx(
        added["text_area_max"][0].as_py() / 2
    )
    assert added["text_num_boxes"][0].as_py() == pytest.approx(0.5)
    assert added.to_pylist()[1] == {
        "clip_id": "clip-1",
        "text_area_share": None,
        "text_area_max": None,
        "text_num_boxes": None,
    }
    assert added["text_area_share"][2].as_py() == 0.0
    assert added.equals(station(clips))


@pytest.mark.embedded
def test_the_trailers_titles_are_found_and_the_meadow_has_none(station, real_weight):
    import av

    def share_before(film: av.container.InputContainer, second: int) -> float:
        """Of the last key frame up to this time."""
        film.seek(second * av.time_base)
        return float(station.measure(next(film.decode(video=0)).to_image())[0])

    with av.open(str(real_weight(BIG_BUCK_BUNNY_TRAILER))) as film:
        assert 0.015 < share_before(film, 11) < 0.06  # 'An unlucky bird', one line of medium size
        assert share_before(film, 26) == 0.0  # the rabbit before his hole
        assert 0.015 < share_before(film, 48) < 0.06  # 'Revenge is coming...'


@pytest.mark.parametrize(
    "change",
    [
        {"long_side_px": 16},
        {"pixel_threshold": 0.0},
        {"box_threshold": 1.5},
        {"unclip_ratio": 0.0},
        {"num_threads": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        OverlayTextConfig(**change)


def test_a_missing_detector_stops_the_setup(tmp_path: Path, monkeypatch):
    from curation.errors import MissingWeights

    monkeypatch.setenv("LAVIE_CACHE", str(tmp_path))
    monkeypatch.delenv("LAVIE_WEIGHTS", raising=False)
    with pytest.raises(MissingWeights, match=PPOCR_TEXT_DETECTOR.sha256):
        OverlayText().setup()
