from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from curation.decode.cuts import GREY_CONTRAST, SceneDetectFinder, content_score, join
from curation.decode.gradual import HEIGHT, WIDTH, window
from curation.decode.scenes import SceneConfig, Transition

SIZE = (256, 144)
FPS = Fraction(24)


def found(frames: Iterable[np.ndarray], config: SceneConfig | None = None) -> list[Transition]:
    """Transitions in RGB pictures, as a stream."""
    finder = SceneDetectFinder(config or SceneConfig(), FPS)
    transitions: list[Transition] = []
    for frame_HWC in frames:
        settled = finder.settled
        new = finder.push(np.ascontiguousarray(frame_HWC[..., ::-1]))
        assert all(transition.end >= settled for transition in new), "nothing before settled"
        assert finder.settled >= settled or finder.settled < 0
        transitions += new
    return transitions + finder.finish()


def mixed(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    return (first * (1 - weight) + second * weight).round().astype(np.uint8)


def shots(
    scene_frames, *looks: tuple[str, int], speed_px: int = 1, size: tuple[int, int] = SIZE
) -> list[np.ndarray]:
    return [
        frame
        for look, num in looks
        for frame in scene_frames(look, num, size=size, speed_px=speed_px)
    ]


def test_content_score_is_that_of_pyscenedetect(texture):
    pictures = [texture(look, SIZE) for look in ("red", "teal", "white", "red/2")]
    detector = ContentDetector()
    expected = [
        detector._calculate_frame_score(FrameTimecode(i, 24.0), p) for i, p in enumerate(pictures)
    ]
    hsv = [cv2.cvtColor(picture, cv2.COLOR_BGR2HSV) for picture in pictures]
    scores = [content_score(first, second) for first, second in pairwise(hsv)]
    assert scores == pytest.approx(expected[1:], rel=1e-9)


@pytest.mark.parametrize(
    "levels", [((60, 160), (90, 230), (30, 120)), ((120, 160), (115, 155), (118, 158))]
)
def test_cuts_of_a_film_without_colour_are_found(scene_frames, levels):
    """Shots of overlapping grey levels; a coded film without colour has a little noise in its colours."""
    noise = np.random.default_rng(0)
    frames = []
    for look, (low, high) in zip(("red", "teal", "white"), levels, strict=True):
        for frame in scene_frames(look, 75, size=SIZE, speed_px=1):
            luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(float)
            level = low + (high - low) * (luma - luma.min()) / (luma.max() - luma.min())
            coloured = level[..., None] + noise.integers(-1, 2, (*level.shape, 3))
            frames.append(coloured.clip(0, 255).astype(np.uint8))
    assert [(cut.end, cut.start) for cut in found(frames)] == [(75, 75), (150, 150)]


def test_a_grey_pair_scores_the_change_of_value_alone(texture):
    grey = [cv2.cvtColor(texture(look, SIZE), cv2.COLOR_RGB2GRAY) for look in ("white", "red")]
    pictures = [cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX) for picture in grey]
    hsv = [cv2.cvtColor(cv2.merge([p] * 3), cv2.COLOR_BGR2HSV) for p in pictures]
    change = np.abs(pictures[0].astype(int) - pictures[1]).mean()
    assert max(picture.std() for picture in pictures) > GREY_CONTRAST
    assert content_score(*hsv) == pytest.approx(change)


def test_a_flat_grey_pair_scores_as_one_of_usual_contrast(texture):
    pictures = [
        (128 + 0.25 * (cv2.cvtColor(texture(look, SIZE), cv2.COLOR_RGB2GRAY) - 128.0)).astype(
            np.uint8
        )
        for look in ("white", "white/2")
    ]
    hsv = [cv2.cvtColor(cv2.merge([p] * 3), cv2.COLOR_BGR2HSV) for p in pictures]
    change = np.abs(pictures[0].astype(int) - pictures[1]).mean()
    contrast = max(4.0, *(picture.std() for picture in pictures))
    assert change > 4
    assert content_score(*hsv) == pytest.approx(change * GREY_CONTRAST / contrast)


def test_detectors_fed_with_scores_report_what_they_report_on_pictures(scene_frames):
    frames = shots(scene_frames, ("red", 40), ("teal", 40), ("white", 40))
    detectors = [ContentDetector(min_scene_len=0), AdaptiveDetector(min_scene_len=0)]
    reported = {
        cut.frame_num
        for index, frame in enumerate(frames)
        for detector in detectors
        for cut in detector.process_frame(FrameTimecode(index, 24.0), frame[..., ::-1])
    }
    assert reported == {each.start for each in found(frames)} == {40, 80}


def test_hard_cuts_are_found_to_the_frame(scene_frames):
    frames = shots(scene_frames, ("red", 50), ("teal", 61), ("white", 30), ("orange", 50))
    assert found(frames) == [Transition(50, 50), Transition(111, 111), Transition(141, 141)]


def test_a_cut_in_the_last_frames_is_found(scene_frames):
    frames = shots(scene_frames, ("red", 50), ("teal", 1))
    assert found(frames) == [Transition(50, 50)]


@pytest.mark.parametrize("num_flash", [1, 3, 5])
def test_a_flash_is_no_cut(scene_frames, num_flash):
    frames = shots(scene_frames, ("red", 100))
    for index in range(50, 50 + num_flash):
        frames[index] = mixed(frames[index], np.full_like(frames[0], 255), 0.9)
    assert found(frames) == []


@pytest.mark.parametrize("num_changed", [1, 2])
def test_a_cut_just_behind_a_change_within_the_shot_is_found(scene_frames, num_changed):
    """Coloured light: a change that detectors report, of a picture that is still the shot's."""
    frames = shots(scene_frames, ("red", 40 + num_changed), ("teal/other", 40))
    for frame_HWC in frames[40 : 40 + num_changed]:
        frame_HWC[:] = frame_HWC[..., ::-1]
    (cut,) = found(frames)
    assert cut.kind == "cut"
    assert cut.start == 40 + num_changed
    assert cut.end in (40, 40 + num_changed)


def test_a_flash_that_fades_away_is_no_cut(scene_frames):
    frames = shots(scene_frames, ("red", 100))
    for place, weight in enumerate((0.9, 0.7, 0.5, 0.3, 0.1)):
        frames[50 + place] = mixed(frames[50 + place], np.full_like(frames[0], 255), weight)
    assert found(frames) == []


def test_a_flash_on_a_cut_leaves_the_cut(scene_frames):
    frames = shots(scene_frames, ("red", 50), ("teal", 50))
    frames[49] = np.full_like(frames[0], 250)
    assert [(cut.end, cut.start) for cut in found(frames)] == [(49, 50)]


def test_black_between_shots_belongs_to_neither(scene_frames):
    frames = shots(scene_frames, ("red", 60), ("black", 12), ("teal", 60))
    assert found(frames) == [Transition(60, 72, "fade")]


@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize(("out", "into"), [(20, 20), (6, 40), (30, 1)])
def test_a_fade_is_one_transition_from_its_first_to_its_last_frame(scene_frames, shade, out, into):
    frames = shots(scene_frames, ("orange", 120), ("cyan", 120), speed_px=0)
    plain = np.full_like(frames[0], shade)
    for place in range(out):
        frames[120 - out + place] = mixed(frames[120 - out + place], plain, (place + 1) / out)
    for place in range(into):
        frames[120 + place] = mixed(plain, frames[120 + place], place / into)
    (transition,) = found(frames)
    assert transition.kind == "fade"
    assert transition.end == pytest.approx(120 - out, abs=2)
    assert transition.start == pytest.approx(120 + into, abs=2)


def test_black_long_enough_for_a_scene_is_one(scene_frames):
    frames = shots(scene_frames, ("red", 60), ("black", 60), ("teal", 60))
    assert found(frames) == [Transition(60, 60, "fade"), Transition(120, 120, "fade")]


def test_black_at_the_start_and_end_is_cut_off(scene_frames):
    frames = shots(scene_frames, ("black", 12), ("red", 60), ("black", 12))
    assert found(frames) == [Transition(12, 12, "fade"), Transition(72, 72, "fade")]


@pytest.mark.parametrize("num_mixed", [12, 24, 48])
def test_a_dissolve_is_found_and_spans_the_mixed_frames(scene_frames, num_mixed):
    first = shots(scene_frames, ("orange", 80 + num_mixed), speed_px=0)
    second = shots(scene_frames, ("cyan/1", 80 + num_mixed), speed_px=0)
    blend = [
        mixed(first[80 + place], second[place], (place + 1) / (num_mixed + 1))
        for place in range(num_mixed)
    ]
    (transition,) = found([*first[:80], *blend, *second[num_mixed:]])
    assert transition.kind == "dissolve"
    slack = 4 + num_mixed // 4
    assert transition.end == pytest.approx(80, abs=slack)
    assert transition.start == pytest.approx(80 + num_mixed, abs=slack)


@pytest.mark.parametrize("speed_px", [0, 2, 8])
def test_a_still_or_panned_shot_has_no_transition(texture, speed_px):
    wide = texture("white", (256 + 120 * 8, 144))
    frames = [wide[:, index * speed_px : index * speed_px + 256] for index in range(120)]
    assert found(frames) == []


def test_light_that_changes_is_no_dissolve(scene_frames):
    frames = shots(scene_frames, ("white", 120))
    dimmed = [mixed(f, np.zeros_like(f), min(1, i / 60) * 0.6) for i, f in enumerate(frames)]
    assert found(dimmed) == []


def wiped(first: np.ndarray, second: np.ndarray, share: float, kind: str) -> np.ndarray:
    """Two shots side by side: an edge, an iris, a push from the left."""
    height, width = first.shape[:2]
    offset = round(share * width)
    picture = first.copy()
    if kind == "edge":
        picture[:, :offset] = second[:, :offset]
    elif kind == "iris":
        y, x = np.mgrid[:height, :width]
        far = np.hypot((x - width / 2) / width, (y - height / 2) / height) / 0.71
        picture[far < share] = second[far < share]
    elif offset:
        picture[:, :offset], picture[:, offset:] = second[:, -offset:], first[:, :-offset]
    return picture


@pytest.mark.parametrize("kind", ["edge", "iris", "push"])
@pytest.mark.parametrize("num", [14, 24])
def test_a_wipe_is_found_and_no_frame_of_it_is_left(scene_frames, kind, num):
    first = shots(scene_frames, ("orange", 80 + num), speed_px=0)
    second = shots(scene_frames, ("cyan/1", 80 + num), speed_px=0)
    between = [
        wiped(first[80 + place], second[place], (place + 1) / (num + 1), kind)
        for place in range(num)
    ]
    (transition,) = found([*first[:80], *between, *second[num:]])
    assert transition.kind == "wipe"
    assert transition.end == pytest.approx(80, abs=SceneConfig().trim_frames + 2)
    assert transition.start == pytest.approx(80 + num, abs=SceneConfig().trim_frames + 2)


def test_a_wipe_between_shots_of_one_place_is_found(texture):
    """What is alike in them does not change, the rest in order."""
    common = texture("white", SIZE).astype(np.uint16)
    first, second = ((common + texture(look, SIZE)) // 2 for look in ("orange", "blue"))
    first, second = first.astype(np.uint8), second.astype(np.uint8)
    between = [wiped(first, second, (place + 1) / 19, "edge") for place in range(18)]
    (transition,) = found([*[first] * 80, *between, *[second] * 80])
    assert transition.kind == "wipe"


def test_a_montage_is_as_many_shots_as_it_has(scene_frames):
    looks = [("red", 60), *[("teal", 7), ("white", 5), ("orange", 9), ("cyan", 7)] * 3, ("red", 60)]
    frames = shots(scene_frames, *looks)
    starts = np.cumsum([num for _, num in looks])[:-1].tolist()
    assert [(cut.end, cut.start) for cut in found(frames)] == [(cut, cut) for cut in starts]


def test_a_strobe_is_no_cut(scene_frames):
    frames = shots(scene_frames, ("red", 120))
    for index in range(40, 80):
        if index // 2 % 2:
            frames[index] = mixed(frames[index], np.full_like(frames[0], 255), 0.8)
    assert found(frames) == []


@pytest.mark.parametrize("shade", [0, 255])
def test_a_strobe_that_leaves_little_to_see_is_no_fade(scene_frames, shade):
    frames = shots(scene_frames, ("red", 160))
    for index in range(60, 100):
        if index // 3 % 2:
            frames[index] = mixed(frames[index], np.full_like(frames[0], shade), 0.9)
    assert found(frames) == []


def test_a_dissolve_rises_evenly_and_a_cut_beside_light_that_changes_does_not():
    """The darker half of a shot lies between a dark one and its own lighter half like a blend of the two."""
    draw = np.random.default_rng(18)
    first, second = (draw.integers(0, top, (HEIGHT, WIDTH, 3)) for top in (40, 256))
    blend = [(1 - share) * first + share * second for share in np.linspace(0, 1, 23)]
    lit = [first] * 2 + [gain * second for gain in (*[0.45] * 12, 0.75, *[1] * 8)]
    films = [np.stack(pictures).reshape(23, -1).astype(np.float32) for pictures in (blend, lit)]
    even, uneven = (
        window(film_TN, (np.diff(film_TN, axis=0) ** 2).sum(axis=1), correlation=0.0)
        for film_TN in films
    )
    assert even is not None
    assert even.kind == "dissolve"
    assert uneven is None


@pytest.mark.parametrize(("look", "speed_px"), [("red/a", 3), ("red/c", 3), ("teal/a", 2)])
def test_a_texture_that_comes_in_again_at_the_side_is_no_wipe(scene_frames, look, speed_px):
    assert found(shots(scene_frames, (look, 120), speed_px=speed_px, size=(160, 90))) == []


@pytest.mark.parametrize(("name", "speed_px"), [("b1", 1), ("h2", 2)])
def test_a_cut_to_the_same_shapes_in_another_colour_is_one(scene_frames, name, speed_px):
    looks = (f"red/{name}", 60), (f"teal/{name}", 60)
    cuts = found(shots(scene_frames, *looks, speed_px=speed_px, size=(160, 90)))
    assert [(cut.end, cut.start) for cut in cuts] == [(60, 60)]


@pytest.mark.parametrize("gain", [0.4, 1.7, 4.0])
def test_light_that_is_switched_is_no_cut(scene_frames, gain):
    frames = shots(scene_frames, ("salmon" if gain > 2 else "red", 120))
    lit = [(frame * (gain if i >= 60 else 1)).clip(0, 255) for i, frame in enumerate(frames)]
    assert found([frame.astype(np.uint8) for frame in lit]) == []


def test_a_camera_that_is_shaken_or_swept_makes_no_cut(texture):
    wide = texture("white", (256 + 200, 144))
    places = [0] * 40 + [0, 60, 10, 50, 0, 55, 5, 30] * 3 + [25 * step for step in range(9)]
    frames = [wide[:, place : place + 256] for place in [*places, *[200] * 60]]
    assert found(frames) == []


def test_a_cut_tells_how_unlike_its_sides_are(scene_frames):
    (cut,) = found(shots(scene_frames, ("red", 60), ("teal", 60)))
    assert cut.confidence is not None
    assert 0.3 < cut.confidence <= 1


def test_two_cuts_stay_two_however_close():
    cuts = [Transition(50, 50), Transition(54, 54)]
    assert join(cuts, gap=6) == cuts


def test_neighbours_are_joined_and_keep_the_gradual_kind():
    assert join([Transition(50, 50), Transition(53, 60, "fade"), Transition(90, 90)], gap=6) == [
        Transition(50, 60, "fade"),
        Transition(90, 90),
    ]


def barred(frames: list[np.ndarray], rows: int, columns: int) -> list[np.ndarray]:
    """Frames with black bars of so many lines added around."""
    return [np.pad(frame_HWC, ((rows, rows), (columns, columns), (0, 0))) for frame_HWC in frames]


@pytest.mark.parametrize(("rows", "columns"), [(24, 0), (0, 40), (24, 40)])
@pytest.mark.parametrize("kind", ["cut", "dissolve", "wipe"])
def test_transitions_are_found_inside_black_bars(scene_frames, kind, rows, columns):
    """Bars are the same in all pictures and make none alike, once they are known."""
    first = shots(scene_frames, ("orange", 120), speed_px=0)
    second = shots(scene_frames, ("cyan/1", 120), speed_px=0)
    num = 0 if kind == "cut" else 20
    between = [
        mixed(first[0], second[0], (place + 1) / (num + 1))
        if kind == "dissolve"
        else wiped(first[0], second[0], (place + 1) / (num + 1), "edge")
        for place in range(num)
    ]
    frames = [*first, *between, *second]
    (plain,), (within,) = found(frames), found(barred(frames, rows, columns))
    assert plain.kind == within.kind == kind
    assert within.end == pytest.approx(plain.end, abs=2 if num else 0)
    assert within.start == pytest.approx(plain.start, abs=2 if num else 0)


def test_a_flash_inside_black_bars_is_no_cut(scene_frames):
    frames = list(scene_frames("white", 120, size=SIZE))
    for frame_HWC in frames[90:93]:
        frame_HWC[:] = 255
    assert found(barred(frames, 22, 0)) == []
