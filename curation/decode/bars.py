"""The part of a film's pictures inside black or plain bars, while they stream by.

Bars are the same in every picture, so they make pictures of different shots alike: of films with an
eighth of black above and below, 134 of 252 transitions were found while the bars were looked at, 233 of
the same films without (docs/verdicts.md). Upright films in wide ones often lie between bars of another
colour than black.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVERY = 4
"""Frames of which one is looked at."""
LOOKS = 6
"""After which it is thought over what the bars are."""
BLACK = 24
"""Brightest value, 0..255, of a line that is black: coding leaves 16 and a little."""
PLAIN = 12
"""Difference, 0..255 in every channel, that pixels of a bar of one colour have from it."""
BLURRED = 3
"""Lines beside bars that are not black, into which scaling and coding carry their colour; a plain
picture between them would not be plain."""
MAX_UNEVEN = 0.2
"""Difference of the bars of a pair, over the wider one; a dark sky has no such pair."""
MIN_INSIDE = 0.25
"""Share of a side that bars leave."""

Area = tuple[slice, slice]
"""Rows and columns."""
Colour = NDArray[np.int16] | None
"""Blue, green, red of bars; None where they are black, or there are none."""


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
        self._colours: tuple[Colour, Colour] = (None, None)
        self._of_area: tuple[Colour, Colour] = (None, None)
        self._seen: Area | None = None

    def push(self, picture_HWC: NDArray[np.uint8]) -> bool:
        """Take the next picture; whether the area is another one from it on."""
        self._num_frames += 1
        if self._num_frames % EVERY:
            return False
        self._look(picture_HWC)
        if self._num_looks < LOOKS:
            return False
        trims = [0 if colour is None else BLURRED for colour in self._colours]
        before, self._seen = self._seen, inside(self._rows, self._columns, trims)
        self._num_looks, self._rows = 0, None
        if self._seen == self.area or (self._seen != before and not self._is_outside(self._seen)):
            return False
        self.area, self._of_area = self._seen, self._colours
        return True

    def _look(self, picture_HWC: NDArray[np.uint8]) -> None:
        """Add how far the pixels of every line are from black, or from a bar's colour, to what was seen."""
        height, width, _ = picture_HWC.shape
        flat_HN = picture_HWC.reshape(height, -1)  # NumPy is faster at this than OpenCV
        rows_H, columns_W = flat_HN.max(axis=1), flat_HN.max(axis=0).reshape(width, 3).max(axis=1)
        if rows_H.max() <= BLACK:
            return  # a picture that is black all over says nothing
        colours = _rim_colour(picture_HWC), _rim_colour(picture_HWC.swapaxes(0, 1))
        if colours[0] is not None:
            rows_H = _from_colour(picture_HWC, colours[0])
        if colours[1] is not None:
            columns_W = _from_colour(picture_HWC.swapaxes(0, 1), colours[1])
        if min(rows_H.max(), columns_W.max()) <= BLACK:  # a single colour
            if any(map(_is_same, self._of_area, colours)):
                return  # the bars' own: nor does that
            rows_H, columns_W = np.full_like(rows_H, 255), np.full_like(columns_W, 255)
        self._num_looks += 1
        if self._rows is None:
            self._rows, self._columns, self._colours = rows_H, columns_W, colours
            return
        same = [_is_same(*pair) for pair in zip(self._colours, colours, strict=True)]
        self._rows = np.maximum(self._rows, rows_H) if same[0] else np.full_like(rows_H, 255)
        self._columns = (
            np.maximum(self._columns, columns_W) if same[1] else np.full_like(columns_W, 255)
        )

    def _is_outside(self, seen: Area | None) -> bool:
        """Whether something lit lies outside the area."""
        if self.area is None or seen is None:
            return self.area is not None
        return any(
            now.start < then.start or now.stop > then.stop
            for now, then in zip(seen, self.area, strict=True)
        )


def _rim_colour(picture_HWC: NDArray[np.uint8]) -> Colour:
    """The one colour of a picture's first and last line; None where they have none, or are black."""
    middle = picture_HWC.shape[1] // 2
    first_C, *others = (
        picture_HWC[place].tolist() for place in ((0, 0), (0, middle), (-1, 0), (-1, middle))
    )
    if max(first_C) <= BLACK or any(abs(each[1] - first_C[1]) > PLAIN for each in others):
        return None  # most pictures: looking at all pixels takes ten times as long
    rim_2WC = picture_HWC[[0, -1]].reshape(-1, 3)
    least_C, most_C = rim_2WC.min(axis=0), rim_2WC.max(axis=0)
    if most_C.max() <= BLACK or (most_C - least_C).max() > PLAIN:
        return None
    return (least_C.astype(np.int16) + most_C) // 2


def _from_colour(picture_HWC: NDArray[np.uint8], colour_C: NDArray[np.int16]) -> NDArray[np.uint8]:
    """How far each line is from a colour, on the scale on which `BLACK` is the bound."""
    far_H = np.abs(picture_HWC - colour_C).max(axis=(1, 2))
    return np.minimum(far_H * (BLACK // PLAIN), 255).astype(np.uint8)


def _is_same(first: Colour, second: Colour) -> bool:
    """Whether bars seen in two pictures are of one colour."""
    if first is None or second is None:
        return first is second
    return bool(np.abs(first - second).max() <= PLAIN)


def inside(
    rows_H: NDArray[np.uint8], columns_W: NDArray[np.uint8], trims: Sequence[int]
) -> Area | None:
    """What is left of a picture by how far its lines are from a bar's; None where that is all of it.

    Args:
        rows_H: how far the pixels of each row are.
        columns_W: of each column.
        trims: lines next to bars that are theirs in part, each way.
    """
    area = _between(rows_H, trims[0]), _between(columns_W, trims[1])
    is_whole = all(
        each == slice(0, len(side)) for each, side in zip(area, (rows_H, columns_W), strict=True)
    )
    return None if is_whole else area


def _between(lines: NDArray[np.uint8], trim: int) -> slice:
    """From the first line inside a pair of bars to the one behind the last; all where there is no pair."""
    lit = np.flatnonzero(lines > BLACK)
    first, behind = int(lit[0]), int(lit[-1]) + 1
    rim = first, len(lines) - behind
    is_pair = min(rim) > 0 and abs(rim[0] - rim[1]) <= max(1, MAX_UNEVEN * max(rim))
    is_pair &= behind - first >= MIN_INSIDE * len(lines)
    return slice(first + trim, behind - trim) if is_pair else slice(0, len(lines))
