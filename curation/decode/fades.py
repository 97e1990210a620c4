"""Fades: plain pictures between two shots, with the ramps that lead there and back (rule 3)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from curation.decode.likeness import SAME_SHOT, likeness
from curation.decode.scenes import Transition

RAMP_S = 2.5
"""Longest ramp that is looked for."""
PLAIN = 3.0
"""Standard deviation over pixels and channels, 0..255, below which a picture is plain; it is not
over before it has passed `NOT_PLAIN`."""
NOT_PLAIN = 4.0
BLACK_CONTRAST = 0.25
"""A dark picture is black when it has less than this share of the contrast seen within `RAMP_S`:
a title or a logo may stay lit. A night shot keeps its contrast."""
NOT_BLACK_CONTRAST = 0.4
"""Black is over at this share of it."""
LIGHT_LEVEL = 1.5
"""Black is over at this multiple of the level at which it begins."""
ABRUPT = 0.7
"""Share of the contrast around a flash that the pictures next to it have."""
STARTS = (0.0, 0.5, 1.0, 2.0)
"""Frames of a ramp that may lie inside the plain stretch."""


@dataclass(slots=True)
class Plain:
    """A plain stretch ``[start, end)``; ``end`` is None while it lasts."""

    start: int
    end: int | None = None
    max_contrast: float = NOT_PLAIN
    """Contrast at which it is over; of black that is lit in part, more."""
    is_left: bool = False
    """Its beginning has been reported."""


class Fades:
    """Finds plain stretches and how far the shots around them are faded.

    Args:
        level: mean of B, G, R under which a picture is black, 0..255.
        fps: frame rate.
    """

    def __init__(self, level: float, fps: Fraction, *, flash: int, min_scene: int) -> None:
        self._level = level
        self._pictures: deque[NDArray[np.uint8]] = deque()
        self._contrasts: deque[float] = deque()
        self._first = 0
        self._open: Plain | None = None
        self._closed: list[Plain] = []
        self._edges: deque[int] = deque(maxlen=64)
        self.set_rate(fps, flash=flash, min_scene=min_scene)

    def set_rate(self, fps: Fraction, *, flash: int, min_scene: int) -> None:
        """Frames that count from here on."""
        self._ramp = max(4, round(RAMP_S * fps))
        self._flash, self._min_scene = flash, min_scene

    def settled(self, num_frames: int) -> int:
        """No fade that is still to be reported begins before this frame."""
        waiting = [plain.start for plain in [*self._closed, self._open] if plain is not None]
        return min([num_frames, *waiting]) - self._ramp

    def add_edge(self, index: int) -> None:
        """A shot begins here: no ramp reaches over it."""
        self._edges.append(index)

    def push(self, index: int, small_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame (BGR, 32x18); fades that are certain."""
        import cv2

        mean_C, deviation_C = cv2.meanStdDev(small_HWC)
        deviations = deviation_C.ravel().tolist()
        contrast = math.sqrt(sum(each * each for each in deviations) / len(deviations))
        self._pictures.append(small_HWC)
        self._contrasts.append(contrast)
        while len(self._pictures) > 2 * self._ramp + self._min_scene:
            self._pictures.popleft()
            self._contrasts.popleft()
            self._first += 1
        self._follow(index, sum(mean_C.ravel().tolist()) / len(deviations), contrast)
        found = []
        plain = self._open
        if plain is not None and not plain.is_left and index - plain.start >= self._min_scene:
            plain.is_left = True
            found += self._left(plain)
        while self._closed and index >= self._closed[0].end + self._ramp:  # type: ignore[operator]
            found += self._reported(self._closed.pop(0))
        return found

    def finish(self) -> list[Transition]:
        """The rest; there are no more frames."""
        found = [each for plain in self._closed for each in self._reported(plain)]
        self._closed = []
        if self._open is not None and not self._open.is_left:
            found += self._left(self._open)
        self._open = None
        return found

    def _follow(self, index: int, level: float, contrast: float) -> None:
        """Open or close a plain stretch."""
        plain = self._open
        if plain is None:
            if contrast < PLAIN:
                self._open = Plain(index)
            elif level < self._level and contrast < BLACK_CONTRAST * max(self._contrasts):
                limit = NOT_BLACK_CONTRAST * max(self._contrasts)
                self._open = Plain(index, max_contrast=max(NOT_PLAIN, limit))
        elif contrast > plain.max_contrast or (
            contrast > NOT_PLAIN and level > LIGHT_LEVEL * self._level
        ):
            plain.end, self._open = index, None
            self._closed.append(plain)

    def _left(self, plain: Plain) -> list[Transition]:
        """The edge at which a long plain stretch begins."""
        if plain.start == 0:
            return []
        return [Transition(plain.start - self._before(plain), plain.start, "fade", 1.0)]

    def _reported(self, plain: Plain) -> list[Transition]:
        """A stretch that is over, with its ramps; nothing if it was a flash."""
        end = plain.end
        assert end is not None
        after = self._after(plain)
        if plain.is_left or plain.start == 0:
            return [Transition(end, end + after, "fade", 1.0)]
        before = self._before(plain)
        start = plain.start - before
        if self._is_flash(plain.start, end) or (
            end + after - start <= self._flash and self._is_same(start - 1, end + after)
        ):
            return []
        if end - plain.start >= self._min_scene:
            return [
                Transition(start, plain.start, "fade", 1.0),
                Transition(end, end + after, "fade", 1.0),
            ]
        return [Transition(start, end + after, "fade", 1.0)]

    def _before(self, plain: Plain) -> int:
        """Frames before the stretch that are faded."""
        edges = [edge for edge in self._edges if edge < plain.start]
        lowest = max([self._first, plain.start - self._ramp, *edges])
        places = range(plain.start - 1, lowest - 1, -1)
        return ramp_length(self._strengths(plain.start, places))

    def _after(self, plain: Plain) -> int:
        """Frames after the stretch that are faded."""
        end = plain.end
        assert end is not None
        edges = [edge for edge in self._edges if edge > end]
        edges += [other.start for other in [*self._closed, self._open] if other is not None]
        newest = self._first + len(self._pictures)
        highest = min([newest, end + self._ramp, *(edge for edge in edges if edge > end)])
        return ramp_length(self._strengths(end - 1, range(end, highest)))

    def _strengths(self, core: int, places: range) -> NDArray[np.float32]:
        """How far each picture is from the plain one: in a fade, its share times that of the shot."""
        plain_HWC = self._picture(core)
        return np.array(
            [np.sqrt(((self._picture(place) - plain_HWC) ** 2).mean()) for place in places],
            np.float32,
        )

    def _is_flash(self, start: int, end: int) -> bool:
        """Whether the light of one shot goes out, or is too strong, at once and comes back at once.

        No ramp is fitted: where it flickers, a ramp would reach over the next or last time.
        """
        if end - start > self._flash or start <= self._first or not self._is_same(start - 1, end):
            return False
        contrasts = np.array(self._contrasts)
        first, last = start - self._first, end - self._first
        usual = contrasts[max(0, first - self._flash) : last + self._flash + 1].max()
        return bool(min(contrasts[first - 1], contrasts[last]) > ABRUPT * usual)

    def _is_same(self, first: int, second: int) -> bool:
        """Whether two frames may be of one shot; False where one is not held."""
        newest = self._first + len(self._pictures) - 1
        if first < self._first or second > newest:
            return False
        pair = [self._picture(index).max(axis=2) for index in (first, second)]
        return likeness(*pair).value >= SAME_SHOT

    def _picture(self, index: int) -> NDArray[np.float32]:
        return self._pictures[max(0, index - self._first)].astype(np.float32)


def ramp_length(strengths_K: NDArray[np.float32]) -> int:
    """Frames of a ramp that rises evenly to a level and stays there, by least squares.

    >>> ramp_length(np.array([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1], np.float32))
    4

    Args:
        strengths_K: from the plain picture outwards; the fit is ``c min(1, (k + s) / n)``.

    Returns:
        How many of them are below the level.
    """
    num = len(strengths_K)
    if num < 2:
        return num
    place_K = np.arange(1, num + 1, dtype=np.float32)
    length_N = np.arange(1, num + 1, dtype=np.float32)
    best = (-1.0, 0)
    for start in STARTS:
        model_NK = np.minimum(1, (place_K[None] + start) / (length_N[:, None] + start))
        explained_N = (model_NK @ strengths_K) ** 2 / (model_NK**2).sum(axis=1)
        length = int(explained_N.argmax())
        best = max(best, (float(explained_N[length]), length))
    return best[1]
