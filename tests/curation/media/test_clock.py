"""Timestamps of packets that were never a film: what the clock makes of each."""

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
    pts: Sequence[int], container: str = "mpegts"
) -> tuple[list[int | None], SteadyClock, list[int]]:
    """Steady times of packets that are shown as they are decoded; the clock; which are hurt."""
    packets = []
    for time in pts:
        packet = av.Packet(b"picture")
        packet.pts = packet.dts = time
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


@pytest.mark.parametrize("wild", [588_342_560, 5])
def test_one_wild_timestamp_is_damage_and_no_jump(wild):
    times, clock, hurt = steady([*line(0, 50), wild, *line(51 * STEP, 50)])
    assert clock.shifts == []
    assert times == [*line(0, 50), None, *line(51 * STEP, 50)]
    assert hurt == [50]


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
