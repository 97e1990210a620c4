"""Timestamps of packets that were never a film: what the clock makes of each."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import pytest

from curation.media.clock import Hurt, SteadyClock

STREAM: Any = SimpleNamespace(
    time_base=Fraction(1, 90_000), guessed_rate=Fraction(30), average_rate=Fraction(30)
)
STEP = 3000


def steady(
    pts: Sequence[int | None],
    container: str = "mpegts",
    keyframes: Sequence[int] = (),
    flagged: Sequence[int] = (),
) -> tuple[list[int | None], SteadyClock, list[int]]:
    """Steady times of packets that are shown as they are decoded; the clock; which are hurt."""
    packets = []
    for number, time in enumerate(pts):
        packet = av.Packet(b"picture")
        packet.pts = packet.dts = time
        packet.is_keyframe = number in keyframes
        packet.is_corrupt = number in flagged
        packets.append(packet)
    clock = SteadyClock(container, STREAM)
    read = list(clock.read(iter(packets)))
    hurt = [place for place, each in enumerate(read) if isinstance(each.opaque, Hurt)]
    return [each.pts for each in read], clock, hurt


def line(first: int, num: int) -> list[int]:
    return [first + n * STEP for n in range(num)]


@pytest.mark.parametrize("first", [0, -90_000, 40_000 * 90_000, 2**33 - 5 * STEP])
def test_a_clock_without_a_jump_is_left_alone(first):
    times, clock, hurt = steady(line(first, 30))
    assert (times, clock.shifts, hurt) == (line(first, 30), [], [])


@pytest.mark.parametrize("second", [0, 100 * STEP - 9000, 3600 * 90_000], ids=["0", "back", "hour"])
def test_a_jump_goes_on_one_step_behind_what_was_shown(second):
    times, clock, hurt = steady(line(0, 100) + line(second, 50))
    assert times == line(0, 150)
    assert [shift.packet for shift in clock.shifts] == [100]
    assert clock.edges == [100 * STEP]
    assert hurt == []


def test_a_recording_whose_first_packet_has_no_time_begins_with_the_next_one():
    times, clock, hurt = steady(
        [*line(0, 50), None, *line(50 * STEP, 20)], keyframes=[0, 50], flagged=[49]
    )
    assert times == [*line(0, 50), None, *line(50 * STEP, 20)]
    assert [shift.packet for shift in clock.shifts] == [51]
    assert clock.edges == [50 * STEP]
    assert hurt == []


@pytest.mark.parametrize("wild", [588_342_560, 5])
def test_one_wild_timestamp_is_damage_and_no_jump(wild):
    times, clock, hurt = steady([*line(0, 50), wild, *line(51 * STEP, 50)])
    assert clock.shifts == []
    assert times == [*line(0, 50), None, *line(51 * STEP, 50)]
    assert hurt == [50]


@pytest.mark.parametrize("first", [2, 30])
def test_a_gap_in_an_even_broadcast_clock_is_loss_up_to_the_next_keyframe(first):
    times = line(0, first) + line((first + 2) * STEP, 60)
    times_shown, clock, hurt = steady(times, keyframes=[0, first + 20, first + 40])
    assert (times_shown, clock.shifts) == (times, [])
    assert hurt == list(range(first - 1, first + 20))


def test_a_keyframe_behind_a_gap_is_whole():
    assert steady(line(0, 30) + line(32 * STEP, 30), keyframes=[0, 30])[2] == [29]


@pytest.mark.parametrize("container", ["mpegts", "mov,mp4,m4a,3gp,3g2,mj2"])
@pytest.mark.parametrize(
    ("steps", "is_loss"),
    [
        ([STEP] * 30 + [2 * STEP] + [STEP] * 30, True),
        ([STEP, STEP * 3 // 2] * 30, False),
        ([STEP] * 30 + [STEP * 3 // 2 + 1] * 30, False),
        ([STEP, 2 * STEP, STEP, 4 * STEP] * 15, False),
        ([2970, 2970, 3060] * 10 + [2970] * 2, False),
    ],
    ids=["one lacks", "pulldown", "fields shown twice", "no pace", "whole milliseconds"],
)
def test_only_a_broadcast_that_keeps_its_pace_has_gaps(container, steps, is_loss):
    hurt = steady(list(itertools.accumulate(steps, initial=0)), container)[2]
    assert bool(hurt) == (is_loss and container == "mpegts")


def test_in_other_containers_minutes_are_a_pause():
    pause = 600 * 90_000
    assert steady(line(0, 50) + line(pause, 50), "matroska")[1].shifts == []
    assert len(steady(line(0, 50) + line(2 * pause, 50), "matroska")[1].shifts) == 1


def test_pictures_that_are_shown_before_earlier_packets_are_no_jump():
    times = [0]
    for group in range(1, 120, 3):
        times += [(group + 2) * STEP, group * STEP, (group + 1) * STEP]
    assert steady(times, "matroska")[1].shifts == []


def test_packets_without_times_pass():
    times, clock, _ = steady([None, *line(0, 5), None, *line(6 * STEP, 5)])  # type: ignore[list-item]
    assert times == [None, *line(0, 5), None, *line(6 * STEP, 5)]
    assert clock.shifts == []
