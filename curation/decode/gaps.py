"""Pictures that are missing whole: gaps in a clock that is even elsewhere.

A group of pictures that was never downloaded, or was cut out of the file, leaves nothing for a decoder to
complain about: only the clock tells. But clocks pause for good reasons too. Recorders of screens write
nothing while nothing changes, slides stand for seconds, filters drop what comes twice. So only a clock
that has been even for long is believed to have a gap, and only one from a multiple of its steps to a
picture that is made from no other; and a film that was seen to pause is one that does.
"""

from __future__ import annotations

import itertools

EVEN_STEPS = 48
"""So many steps before a gap were alike: two seconds of cinema. Cameras that drop pictures, screens
and slides seldom have as many."""
GRAIN_S = 0.001
"""Steps are alike if none differs by more from another, or by more than a tick: the coarsest clock of
common containers, over which films of finer ones have come."""
LEAST_GAP_S = 0.5
"""Groups of pictures are seldom shorter."""
LEAST_GAP_STEPS = 3
TORN_STEPS = 1.5
"""Between one step and two: of the last pictures of a film one that follows so late misses another."""
_NO_STEP = 1 << 62, 0


class EvenClock:
    """Says of each time of showing, in their order, how many pictures are missing before it.

    Args:
        tick_s: seconds of one unit of the times.
    """

    def __init__(self, tick_s: float) -> None:
        self._grain = max(1, round(GRAIN_S / tick_s))
        self._least_gap = LEAST_GAP_S / tick_s
        self._last: int | None = None
        self._pauses = False
        self._begin = self._num_steps = 0
        self._shortest, self._longest = _NO_STEP

    def missing(self, pts: int) -> int:
        """Pictures missing before the one at this time, if no `pause` is said of it; usually 0."""
        last, self._last = self._last, pts
        if last is None:
            self._begin = pts
            return 0
        step = pts - last
        if step >= self._least_gap:
            missing = self._whole_steps(step) - 1
            self._restart(pts)
            return 0 if self._pauses else max(0, missing)
        shortest, longest = min(self._shortest, step), max(self._longest, step)
        if longest - shortest <= self._grain:
            self._shortest, self._longest = shortest, longest
        else:
            self._begin, self._num_steps = last, 0
            self._shortest = self._longest = step
        self._num_steps += 1
        return 0

    def torn(self, times: list[int]) -> int | None:
        """Of the last times of a film, which are still to come: the first behind a step that is too long.

        Films that were cut by copying packets end so: a picture is there, but not all that are shown
        before it and decoded behind it.
        """
        if self._num_steps < EVEN_STEPS or self._last is None:
            return None
        longest = TORN_STEPS * (self._last - self._begin) / self._num_steps + self._grain
        pairs = itertools.pairwise([self._last, *times])
        return next((time for before, time in pairs if time - before > longest), None)

    def pause(self) -> None:
        """What looked like a gap was a pause: of this film no gap is believed any more."""
        self._pauses = True

    def _restart(self, pts: int) -> None:
        self._begin, self._num_steps = pts, 0
        self._shortest, self._longest = _NO_STEP

    def _whole_steps(self, gap: int) -> int:
        """The gap in steps of an even clock; 0 where the clock is not even, or it is no multiple."""
        if self._num_steps < EVEN_STEPS:
            return 0
        assert self._last is not None
        step = (self._last - gap - self._begin) / self._num_steps
        if step <= 0:
            return 0
        num = round(gap / step)
        # The step is known to a grain in as many as were seen.
        tolerance = self._grain * (2 + num / self._num_steps)
        fits = num > LEAST_GAP_STEPS and abs(gap - num * step) <= tolerance
        return num if fits else 0
