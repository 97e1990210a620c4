"""Text boxes from a map made by hand, and the real detector on text of known place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from curation.stations.overlay_text import OverlayText, OverlayTextConfig
from curation.stations.overlay_text.finding import detector_input, text_boxes, union_share
from curation.stations.overlay_text.following import (
    Line,
    is_credits,
    is_subtitle,
    laid_over,
    stands_at,
)
from curation.stations.overlay_text.reading import decoded
from curation.stations.station import check_output
from curation.weights.catalog import (
    BIG_BUCK_BUNNY_TRAILER,
    PPOCR_CHARACTERS,
    PPOCR_TEXT_DETECTOR,
    PPOCR_TEXT_RECOGNISER,
)

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
    assert text_boxes(heart_map((100, 50, 200, 70), level=0.35), SETTINGS) == []
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
    assert detector_input(Image.new("RGB", (64, 64)), long_side_px=640).shape == (1, 3, 640, 640)


@pytest.fixture(scope="module")
def station(real_weight) -> OverlayText:
    for weight in (PPOCR_TEXT_DETECTOR, PPOCR_TEXT_RECOGNISER, PPOCR_CHARACTERS):
        real_weight(weight)
    station = OverlayText()
    station.setup()
    return station


def line(text: str, left: float, top: float, *, width: float = 0.4, height: float = 0.05) -> Line:
    """A level line, in heights of the picture."""
    right, bottom = left + width, top + height
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    return Line(corners, text, 0.99)


def turned(level: Line, degrees: float) -> Line:
    """The line turned about its middle."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    middle = level.corners.mean(axis=0)
    return Line((level.corners - middle) @ turn.T + middle, level.text, level.sureness)


MOVING = np.arange(4, dtype=np.float32)[:, None, None] * np.full((64, 64), 40, np.float32)
STILL = np.zeros((4, 64, 64), np.float32)


def test_subtitles_stand_at_one_place_though_they_say_other_things():
    first, second = line("Where were you?", 0.6, 0.9), line("At home.", 0.7, 0.9, width=0.2)
    assert stands_at(first, second)
    assert laid_over([[first], [first], [second], [second]], MOVING) == [[True]] * 4


def test_a_sign_that_goes_by_is_scene_text():
    passing = [[line("BAKERY", 0.2 + 0.15 * t, 0.4)] for t in range(4)]
    assert laid_over(passing, MOVING) == [[False]] * 4


def test_a_line_seen_once_is_laid_over_where_it_is_level():
    title = line("THE END", 0.5, 0.4)
    assert laid_over([[], [title], [], []], MOVING) == [[], [True], [], []]
    assert laid_over([[], [turned(title, 8)], [], []], MOVING) == [[], [False], [], []]


def test_a_slanted_sign_before_a_camera_that_stands_still_is_scene_text():
    sign = turned(line("BAKERY", 0.5, 0.4), 8)
    assert laid_over([[sign]] * 4, STILL) == [[False]] * 4
    assert laid_over([[sign]] * 4, MOVING) == [[True]] * 4


def test_lines_that_roll_straight_up_are_credits_and_one_line_that_does_is_not():
    names = ["Ada Moss", "Peter Novak", "Rui Tanaka", "Hana Sato"]
    pages = [
        [line(name, 0.5, 0.9 - 0.2 * t + 0.08 * k, width=0.3) for k, name in enumerate(names)]
        for t in range(4)
    ]
    over = laid_over(pages, MOVING)
    assert over == [[True] * 4] * 4
    assert is_credits(pages, over)
    lift = [[page[0]] for page in pages]
    assert laid_over(lift, MOVING) == [[False]] * 4
    assert not is_credits(lift, [[False]] * 4)


def test_subtitles_are_low_centred_and_small():
    assert is_subtitle(line("Wait for me.", 16 / 18 - 0.2, 0.88), aspect=16 / 9)
    assert not is_subtitle(line("Wait for me.", 16 / 18 - 0.2, 0.4), aspect=16 / 9)
    assert not is_subtitle(line("ANNA KELLER", 0.1, 0.88), aspect=16 / 9)
    assert not is_subtitle(line("THE END", 16 / 18 - 0.2, 0.8, height=0.2), aspect=16 / 9)


def test_repetitions_and_blanks_are_no_characters():
    characters = ["", "a", "b", " "]
    steps = np.full((6, 4), 0.01, np.float32)
    for step, character in enumerate([1, 1, 0, 1, 2, 0]):
        steps[step, character] = 0.9
    assert decoded(steps, characters) == ("aab", pytest.approx(0.9))
    assert decoded(steps[2:3], characters) == ("", 0.0)


def with_title(picture: Image.Image, text: str, at: tuple[int, int]) -> Image.Image:
    """The picture with white text of 40 px."""
    titled = picture.copy()
    ImageDraw.Draw(titled).text(at, text, fill="white", font=ImageFont.load_default(size=40))
    return titled


@pytest.mark.embedded
def test_a_title_is_read_and_its_share_is_that_of_its_box(station, keyframe_clips, noise_picture):
    plain = noise_picture(3, (640, 360))
    titled = with_title(plain, "a night in the city", (120, 250))
    box = ImageDraw.Draw(plain).textbbox(
        (120, 250), "a night in the city", font=ImageFont.load_default(size=40)
    )
    share = (box[2] - box[0]) * (box[3] - box[1]) / (640 * 360)
    clips = keyframe_clips([[titled, plain], [], [plain]])
    added = station(clips)
    check_output(station, clips, added)
    first, none, last = added.to_pylist()
    assert first["overlay_text_max"] == first["text_area_max"] == pytest.approx(share, rel=0.5)
    assert first["overlay_text_share"] == pytest.approx(first["overlay_text_max"] / 2)
    assert first["text_num_boxes"] == pytest.approx(0.5)
    assert [text.replace(" ", "") for text in first["overlay_text"]] == ["anightinthecity"]
    assert first["scene_text_share"] == 0.0
    assert none == {"clip_id": "clip-1"} | dict.fromkeys(added.column_names[1:])
    assert last["text_area_share"] == 0.0
    assert last["overlay_text"] == []
    assert added.equals(station(clips))


@pytest.mark.embedded
def test_a_word_that_moves_through_the_picture_is_scene_text(
    station, keyframe_clips, noise_picture
):
    plain = noise_picture(3, (640, 360))
    passing = [with_title(plain, "BAKERY", (40 + 100 * t, 120)) for t in range(4)]
    (row,) = station(keyframe_clips([passing])).to_pylist()
    assert row["overlay_text_share"] == 0.0
    assert row["scene_text_share"] > 0.02


@pytest.mark.embedded
def test_the_trailers_titles_are_found_and_the_meadow_has_none(station, real_weight):
    import av

    def share_before(film: av.container.InputContainer, second: int) -> float:
        """Of the last key frame up to this time."""
        film.seek(second * av.time_base)
        found = station.measure(next(film.decode(video=0)).to_image())
        return found.share(found.lines)

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
        {"read_threshold": 1.0},
        {"min_characters": 0},
        {"max_lines": 0},
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
