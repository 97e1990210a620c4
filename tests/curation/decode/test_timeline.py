from fractions import Fraction

import pytest

from curation.decode.timeline import Pace, Timeline

MS = Fraction(1, 1000)


def test_timeline_starts_at_zero_whatever_the_first_timestamp():
    timeline = Timeline(Fraction(1, 90_000))
    for index in range(3):
        timeline.add(126_000 + index * 3000, 3000)
    assert timeline.seconds(0) == 0.0
    assert timeline.seconds(3) == pytest.approx(0.1)


def test_frames_without_or_with_backward_timestamps_still_rise():
    timeline = Timeline(Fraction(1, 24))
    assert [timeline.add(pts, 2) for pts in (10, None, 14, 14, 13, 20)] == [10, 12, 14, 15, 16, 20]
    assert timeline.end_pts == 22


def test_a_last_frame_without_length_is_as_long_as_the_one_before():
    timeline = Timeline(Fraction(1, 24))
    for pts in (0, 4, 8):
        timeline.add(pts, 0)
    assert timeline.end_pts == 12


def test_an_interruption_ends_the_last_frame_and_no_other():
    timeline = Timeline(MS)
    for pts in (0, 40, 80):
        timeline.add(pts, 40 if pts < 80 else 25_000)
    timeline.interrupt(40)
    timeline.add(25_080, 40)
    assert [timeline.end(frame) for frame in (1, 2, 3, 4)] == [40, 80, 120, 25_120]
    assert timeline.at(3) == 25_080
    assert timeline.end_seconds(3) == pytest.approx(0.12)


def test_an_interruption_never_lasts_into_the_next_frame():
    timeline = Timeline(MS)
    for pts in (0, 40, 80):
        timeline.add(pts, 1)
    timeline.interrupt(40, until=95)
    timeline.add(95, 40)
    assert (timeline.end(3), timeline.at(3)) == (95, 95)


def rates(pace: Pace, distances: list[int]) -> list[float]:
    """The rates that came to count, frame by frame."""
    pts, found = 0, []
    for distance in distances:
        if pace.add(pts):
            found.append(float(pace.fps))
        pts += distance
    return found


def test_a_stated_rate_counts_as_long_as_the_frames_bear_it_out():
    pace = Pace(Fraction(30), MS)
    assert rates(pace, [33, 34, 33, 30, 37, 33] * 20) == []
    assert not pace.is_measured


def test_a_wrong_rate_is_corrected_by_the_first_frames():
    pace = Pace(Fraction(240), MS)
    (fps,) = rates(pace, [33, 34, 33] * 10)
    assert fps == pytest.approx(30, rel=0.02)
    assert pace.is_measured
    assert pace.length == pytest.approx(33, abs=1)


def test_the_pace_follows_a_change_of_rate_but_no_pause():
    pace = Pace(Fraction(30), MS)
    found = rates(pace, [33] * 40 + [12_000] + [33] * 40 + [66] * 60)
    assert found == [pytest.approx(15, rel=0.02)]


def test_steps_of_a_coarse_clock_are_no_other_rate():
    assert rates(Pace(Fraction(30), MS), [0, 50, 50] * 40) == []
    assert rates(Pace(Fraction(60), MS), [1, 1, 48] * 40) == []
