"""The part of a film's pictures inside black bars, while they stream by.

Bars are the same in every picture, so they make pictures of different shots alike: of films with an
eighth of black above and below, 134 of 252 transitions were found while the bars were looked at, 233 of
the same films without (docs/verdicts.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EVERY = 4
"""Frames of which one is looked at."""
LOOKS = 6
"""After which it is thought over what the bars are."""
BLACK = 24
"""Brightest value, 0..255, of a line that is black: coding leaves 16 and a little."""
MAX_UNEVEN = 0.2
"""Difference of the bars of a pair, over the wider one; a dark sky has no such pair."""
MIN_INSIDE = 0.25
"""Share of a side that bars leave."""

Area = tuple[slice, slice]
"""Rows and columns."""


class Bars:
    """Follows the bars of one stretch; the area inside them changes at most once in `EVERY * LOOKS` frames.

    Bars have to be seen twice before they count, so that a dark scene has none. What lights up outside
    ends them.
    """

    def __init__(self) -> None:
        self.area: Area | None = None
        """Inside the bars; None where there are none."""
        self._num_frames = self._num_looks = 0
        self._rows: Any = None
        self._columns: Any = None
        self._seen: Area | None = None

    def push(self, picture_HWC: NDArray[np.uint8]) -> bool:
        """Take the next picture; whether the area is another one from it on."""
        self._num_frames += 1
        if self._num_frames % EVERY:
            return False
        self._look(picture_HWC)
        if self._num_looks < LOOKS:
            return False
        before, self._seen = self._seen, inside(self._rows, self._columns)
        self._num_looks, self._rows = 0, None
        if self._seen == self.area or (self._seen != before and not self._is_outside(self._seen)):
            return False
        self.area = self._seen
        return True

    def _look(self, picture_HWC: NDArray[np.uint8]) -> None:
        """Add the brightest value of every line to those seen before."""
        height, width, _ = picture_HWC.shape
        flat_HN = picture_HWC.reshape(height, -1)  # NumPy is faster at this than OpenCV
        rows_H, columns_W = flat_HN.max(axis=1), flat_HN.max(axis=0).reshape(width, 3).max(axis=1)
        if rows_H.max() <= BLACK:
            return  # a picture that is black all over says nothing
        self._num_looks += 1
        is_first = self._rows is None
        self._rows = rows_H if is_first else np.maximum(self._rows, rows_H)
        self._columns = columns_W if is_first else np.maximum(self._columns, columns_W)

    def _is_outside(self, seen: Area | None) -> bool:
        """Whether something lit lies outside the area."""
        if self.area is None or seen is None:
            return self.area is not None
        return any(
            now.start < then.start or now.stop > then.stop
            for now, then in zip(seen, self.area, strict=True)
        )


def inside(rows_H: NDArray[np.uint8], columns_W: NDArray[np.uint8]) -> Area | None:
    """What is left of a picture by the brightest values of its lines; None where that is all of it."""
    area = _between(rows_H), _between(columns_W)
    is_whole = all(
        each == slice(0, len(side)) for each, side in zip(area, (rows_H, columns_W), strict=True)
    )
    return None if is_whole else area


def _between(lines: NDArray[np.uint8]) -> slice:
    """From the first line inside a pair of bars to the one behind the last; all where there is no pair."""
    lit = np.flatnonzero(lines > BLACK)
    first, behind = int(lit[0]), int(lit[-1]) + 1
    rim = first, len(lines) - behind
    is_pair = min(rim) > 0 and abs(rim[0] - rim[1]) <= max(1, MAX_UNEVEN * max(rim))
    is_pair &= behind - first >= MIN_INSIDE * len(lines)
    return slice(first, behind) if is_pair else slice(0, len(lines))
