from fractions import Fraction

import numpy as np
import pytest

from curation.decode.freezes import Freezes
from curation.decode.timeline import Timeline

FPS = 24


def freezes_of(pictures, durations=None) -> Freezes:
    timeline = Timeline(Fraction(1, FPS))
    freezes = Freezes(timeline)
    for index, picture_HWC in enumerate(pictures):
        timeline.add(None, durations[index] if durations else 1)
        freezes.push(index, picture_HWC)
    return freezes


@pytest.fixture
def film(scene_frames):
    return list(scene_frames("teal", 96, size=(160, 90), speed_px=2))


def test_a_film_that_moves_is_not_frozen(film):
    assert freezes_of(film).share(0, 96) == 0.0


def test_a_picture_that_hangs_is_a_share_of_the_time(film):
    film[24:48] = [film[24]] * 24
    assert freezes_of(film).share(0, 96) == pytest.approx(24 / 96)


def test_drawings_that_are_held_for_some_frames_are_not_frozen(film):
    held = [film[index - index % 3] for index in range(96)]
    assert freezes_of(held).share(0, 96) == 0.0


def test_a_slow_change_is_compared_with_the_first_picture_and_is_no_freeze(film):
    slow = [film[0] // 2 + np.uint8(index // 4) for index in range(96)]
    assert freezes_of(slow).share(0, 96) == 0.0


def test_a_scene_has_what_lies_within_it(film):
    film[30:90] = [film[30]] * 60
    freezes = freezes_of(film)
    assert freezes.share(0, 40) == 0.0, "ten frames of it are too short"
    assert freezes.share(40, 70) == 1.0
    assert freezes.share(70, 96) == pytest.approx(20 / 26)


def test_a_frame_that_is_shown_for_long_stands_still_too(film):
    freezes = freezes_of(film[:24], durations=[1] * 12 + [36] + [1] * 11)
    assert freezes.share(0, 24) == pytest.approx(36 / 59)


def test_nothing_hangs_on_across_an_interruption(film):
    timeline = Timeline(Fraction(1, FPS))
    freezes = Freezes(timeline)
    for index in range(20):
        if index == 10:
            freezes.interrupt(10)
        timeline.add(None, 1)
        freezes.push(index, film[0])
    assert freezes.share(0, 20) == 0.0
