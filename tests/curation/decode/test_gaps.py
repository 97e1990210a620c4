"""Times of showing that were never a film: which of their steps are gaps."""

import random
from collections.abc import Iterable
from fractions import Fraction

import pytest

from curation.decode.gaps import EVEN_STEPS, EvenClock


def gaps(times: Iterable[int], tick_s: float) -> dict[int, int]:
    """Number of the frame behind each gap -> frames missing before it."""
    clock = EvenClock(tick_s)
    found = [clock.missing(pts) for pts in times]
    return {number: missing for number, missing in enumerate(found) if missing}


@pytest.mark.parametrize("base", [1000, 16_000, 30_000, 90_000])
@pytest.mark.parametrize("fps", [Fraction(24_000, 1001), Fraction(30_000, 1001), 25, 50, 60])
@pytest.mark.parametrize("missing", [30, 60, 199])
def test_a_gap_is_told_with_its_frames_on_any_clock(base, fps, missing):
    numbers = [*range(200), *range(200 + missing, 500)]
    times = [round(number * base / fps) for number in numbers]
    assert gaps(times, 1 / base) == {200: missing}


def test_a_clock_in_another_ones_grain_is_even():
    """From milliseconds into sixteenths of them, as when a Matroska film becomes an MP4."""
    numbers = [*range(100), *range(130, 200)]
    assert gaps([round(number * 1000 / 30) * 16 for number in numbers], 1 / 16_000) == {100: 30}


def test_a_clock_that_was_even_for_too_short_has_no_gap():
    numbers = [*range(EVEN_STEPS), *range(EVEN_STEPS + 60, EVEN_STEPS + 90)]
    assert gaps([40 * number for number in numbers], 0.001) == {}
    numbers = [*range(EVEN_STEPS + 1), *range(EVEN_STEPS + 60, EVEN_STEPS + 90)]
    assert gaps([40 * number for number in numbers], 0.001) == {EVEN_STEPS + 1: 59}


def test_a_pause_that_is_no_multiple_of_the_steps_is_one():
    assert gaps([*range(0, 4000, 40), *range(5017, 9000, 40)], 0.001) == {}


def test_jitter_is_not_even():
    draw = random.Random(2)
    times = [40 * number + draw.randrange(8) for number in [*range(150), *range(200, 300)]]
    assert gaps(times, 0.001) == {}


def test_a_film_that_pauses_is_believed_to_have_no_gap():
    clock = EvenClock(0.001)
    first = [clock.missing(40 * number) for number in [*range(100), 150]]
    assert first[-1] == 50
    clock.pause()
    assert not any(clock.missing(40 * number) for number in [*range(151, 300), *range(400, 500)])


def test_times_that_stand_or_go_back_are_no_gap():
    assert gaps([0] * 100 + [5000] + [4000, 4040], 0.001) == {}


@pytest.mark.parametrize(
    ("last", "first_torn"),
    [([100, 101, 102], None), ([101], 101), ([100, 102, 104], 102), ([], None)],
)
def test_of_the_last_frames_those_behind_a_missing_one_are_torn(last, first_torn):
    clock = EvenClock(0.001)
    for number in range(100):
        clock.missing(40 * number)
    found = clock.torn([40 * number for number in last])
    assert found == (None if first_torn is None else 40 * first_torn)


def test_where_frames_come_unevenly_none_is_torn():
    clock = EvenClock(0.001)
    for number in range(100):
        clock.missing(40 * number + number % 5)
    assert clock.torn([5000, 6000]) is None
