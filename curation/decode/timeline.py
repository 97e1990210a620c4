"""When the frames of a film are shown, and how fast they follow each other."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

LOWEST_FPS, HIGHEST_FPS = Fraction(1), Fraction(240)
"""Frame rates outside count as the nearer one where seconds become numbers of frames."""

MOST_ON_A_TICK = 8
"""Frames that share one tick of a coarse clock: 60 a second and 100 ms are six."""


@dataclass(slots=True)
class Timeline:
    """Start of every decoded frame, in ticks of the stream's time base; 8 bytes a frame."""

    time_base: Fraction
    pts: array[int] = field(default_factory=lambda: array("q"))
    end_pts: int = 0
    """Where the last frame so far ends."""
    _ends: dict[int, int] = field(default_factory=dict)

    def add(self, pts: int | None, duration: int) -> int:
        """Take the next frame's timestamp and length; returns the timestamp that counts.

        A frame without a timestamp begins where the one before it ends; one that is not later than
        the frame before it (coarse clocks, broken muxers) is put one tick after that.
        """
        start = self.end_pts if pts is None else pts
        if self.pts and start <= self.pts[-1]:
            start = self.pts[-1] + 1
        length = duration if duration > 0 else self._usual_length()
        self.pts.append(start)
        self.end_pts = start + length
        return start

    def interrupt(self, length: int, until: int | None = None) -> None:
        """The last frame so far is shown for this long, or until the next one comes.

        Args:
            length: in ticks.
            until: timestamp of the next frame, where it is known.
        """
        if self.pts:
            longest = length if until is None else min(length, until - self.pts[-1])
            self.end_pts = self.pts[-1] + max(1, longest)
            self._ends[len(self.pts)] = self.end_pts

    def _usual_length(self) -> int:
        """The last distance between two frames; one tick where there is none."""
        return self.pts[-1] - self.pts[-2] if len(self.pts) > 1 else 1

    def __len__(self) -> int:
        return len(self.pts)

    def at(self, frame: int) -> int:
        """Where ``frame`` begins; the end of the last frame for the one after it."""
        return self.pts[frame] if frame < len(self.pts) else self.end_pts

    def end(self, frame: int) -> int:
        """Where the frame before ``frame`` ends: there, or earlier where something interrupts."""
        return self._ends.get(frame, self.at(frame))

    def seconds(self, frame: int) -> float:
        """`at` in seconds on the film's clock, on which the first frame is at 0."""
        return float((self.at(frame) - self.pts[0]) * self.time_base)

    def end_seconds(self, frame: int) -> float:
        """`end` in seconds on the same clock."""
        return float((self.end(frame) - self.pts[0]) * self.time_base)


class Pace:
    """The frame rate of the last second or so, as the timestamps have it.

    What a container states is where it begins, and what counts as long as the frames come within a
    quarter of it.

    Args:
        stated_fps: frames a second.
        time_base: of the timestamps.
    """

    DISTANCES = 24
    """Of which the median counts: a pause does not change it, and a switch to another rate does
    within half of them."""
    FEWEST = 8
    TOLERANCE = Fraction(5, 4)

    def __init__(self, stated_fps: Fraction, time_base: Fraction) -> None:
        self.fps = stated_fps
        """Frames a second that count now."""
        self.is_measured = False
        """Whether the stated rate was found wrong."""
        self._time_base = time_base
        self._distances: deque[int] = deque(maxlen=self.DISTANCES)
        self._last: int | None = None
        self._num_new = 0
        self._median: int | None = None

    @property
    def length(self) -> int:
        """Of a frame, in ticks, at least 1: as the last ones have it, where they have the rate."""
        stated = 1 / (self.fps * self._time_base)
        if len(self._distances) >= self.FEWEST:
            median = sorted(self._distances)[len(self._distances) // 2]
            if 1 / self.TOLERANCE <= median / stated <= self.TOLERANCE:
                return median
        return max(1, round(stated))

    def add(self, pts: int) -> bool:
        """Take the next frame's timestamp; whether another rate counts from here on."""
        if self._last is not None:
            self._distances.append(pts - self._last)
            self._num_new += 1
        self._last = pts
        if self._num_new < self.FEWEST:
            return False
        self._num_new = 0
        if self._holds(self.fps):
            return False  # on a coarse clock many steps are too long and as many too short
        median = sorted(self._distances)[len(self._distances) // 2]
        if median == self._median:
            return False  # as judged the last time
        self._median = median
        seen = min(max(1 / (median * self._time_base), LOWEST_FPS), HIGHEST_FPS)
        if 1 / self.TOLERANCE <= seen / self.fps <= self.TOLERANCE:
            return False
        self.fps, self.is_measured = seen.limit_denominator(1001), True
        return True

    def _holds(self, fps: Fraction) -> bool:
        """Whether the last distances are those of a frame rate on the average.

        One step of a coarse clock may be counted or not.
        """
        frames = self._time_base * fps
        off = abs(sum(self._distances) * frames - len(self._distances))
        grain = min(max(self._distances) * frames, Fraction(MOST_ON_A_TICK))
        return off <= grain or off <= (self.TOLERANCE - 1) * len(self._distances)

    def restart(self) -> None:
        """The distance to the next frame says nothing."""
        self._last = None


class Ticker:
    """Says which frames of a stream to sample so that they lie a fixed distance apart in time."""

    def __init__(self, interval_ticks: int) -> None:
        self._interval = max(1, interval_ticks)
        self._next: int | None = None

    def due(self, pts: int) -> bool:
        """Whether this frame is the first at or after the next point of the grid."""
        if self._next is None:
            self._next = pts
        if pts < self._next:
            return False
        self._next += ((pts - self._next) // self._interval + 1) * self._interval
        return True
