"""What detectors of change report is told apart: cuts, and changes within one shot (rule 2)."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from curation.decode.likeness import (
    MIN_CONTRAST,
    SAME_SHOT,
    Likeness,
    contrast,
    is_overexposed,
    likeness,
    small_least,
    small_value,
    tint,
)
from curation.decode.scenes import Transition

NEAR = 2
"""Hits at most this far apart are one change: a picture between them was seen for a frame."""
MANY = 4
"""Hits within the flash time before and behind another, by which a stretch is restless: a montage has three
at most."""
RESTLESS_SHOT = 0.62
"""Likeness from which neighbouring frames of a restless stretch are of one shot: wings that beat before a
shaken camera go down to 0.63."""
MAX_TINT_CHANGE = 0.6
"""Change of a picture's tint, 0 to 2, that no movement explains: of 1,017 hits within shots none is over
0.44. Light may change more."""
FAR = 3
"""Frames on each side at which a change that no movement explains is looked at again."""


class HardCuts:
    """Turns hits of the detectors into cuts, or into nothing.

    Args:
        flash: frames within which a picture that comes back makes a change a flash.
        lateness: frames after which detectors report a hit, at most.
    """

    def __init__(self, flash: int, *, lateness: int) -> None:
        self._lateness = lateness
        self._hits: list[int] = []
        self._past: deque[int] = deque(maxlen=64)
        self._recent: deque[NDArray[np.uint8]] = deque()
        self._first = 0
        self._small: dict[int, NDArray[np.float32]] = {}
        self.set_flash(flash)

    def set_flash(self, flash: int) -> None:
        """Frames that count from here on."""
        self._flash = flash
        self._delay = max(flash + NEAR, self._lateness, FAR) + 1

    def settled(self, num_frames: int) -> int:
        """No cut that is still to be reported lies before this frame."""
        return self._hits[0] if self._hits else num_frames - self._lateness - 1

    def add_frame(self, hsv_HWC: NDArray[np.uint8]) -> None:
        """Take the next frame's HSV picture."""
        self._recent.append(hsv_HWC)
        while len(self._recent) > 2 * self._delay + self._lateness + FAR:
            self._recent.popleft()
            self._small.pop(self._first, None)
            self._first += 1

    def add_hit(self, index: int) -> None:
        """A detector says that a shot begins with this frame (one of the last few)."""
        if index and index not in self._hits:
            self._hits = sorted([*self._hits, index])

    def resolve(self, index: int | None) -> list[Transition]:
        """The cuts that are certain.

        Args:
            index: the newest frame; None after the last one.
        """
        found = []
        while self._hits and (index is None or index >= self._hits[0] + self._delay):
            cut = self._next()
            if cut is not None:
                found.append(cut)
        return found

    def _next(self) -> Transition | None:
        """Take the first hit, and those that belong to it: a cut, or None."""
        first = last = self._hits.pop(0)
        self._past.append(first)
        if self._is_one_shot(first):
            return None
        others = [first]
        while self._hits and self._hits[0] - last <= NEAR and last - first < self._flash:
            hit = self._hits.pop(0)
            self._past.append(hit)
            if not self._is_one_shot(hit):
                last = hit
                others.append(hit)
        # A change beside a cut, that leaves the picture like the one before, is not a flash and its end.
        broken = (hit for hit in others if self._likeness(hit - 1, hit).value < SAME_SHOT)
        back = self._comes_back(next(broken, first))
        if back is not None:
            self._hits = [hit for hit in self._hits if hit > back]
            return None
        value = likeness(self._picture(first - 1), self._picture(last)).value
        return Transition(first, last, confidence=1 - max(0.0, value))

    def _is_one_shot(self, hit: int) -> bool:
        """Whether movement or light explains a hit.

        Where it is light, the pictures around must be alike too: those of a short blend of two shots are only
        like their neighbours.
        """
        near = self._likeness(hit - 1, hit)
        if near.value < (RESTLESS_SHOT if self._is_restless(hit) else SAME_SHOT):
            return False
        if near.is_moved:
            return True
        return self._likeness(hit - FAR, hit + FAR - 1).value >= SAME_SHOT

    def _is_restless(self, hit: int) -> bool:
        """Whether nearly every frame around a hit changes that much."""
        around = [each for each in (*self._past, *self._hits) if 0 < abs(each - hit) <= self._flash]
        return len(around) >= MANY

    def _likeness(self, first: int, second: int) -> Likeness:
        """How alike two frames are, by what light that is too strong leaves of them."""
        pair = self._picture(first), self._picture(second)
        alike = likeness(*pair)
        if alike.value < SAME_SHOT and any(map(is_overexposed, pair)):
            alike = likeness(*(small_least(self._frame(index)) for index in (first, second)))
        if alike.is_moved and alike.value >= RESTLESS_SHOT:
            tints = [tint(self._frame(index)) for index in (first, second)]
            if np.abs(tints[0] - tints[1]).sum() > MAX_TINT_CHANGE:
                return Likeness(0.0, True)
        return alike

    def _comes_back(self, first: int) -> int | None:
        """The frame at which a flash that a hit is the start or end of is over, if it is of one.

        The picture before a flash is back within its time, and those of the flash have little contrast;
        another picture that is shown in between is a shot, however short.
        """
        later = range(first, min(first + self._flash, self._newest) + 1)
        back = self._same_behind_flash(first - 1, later)
        if back is not None:
            return back
        earlier = range(first - 1, max(first - self._flash, self._first + 1) - 2, -1)
        return first if self._same_behind_flash(first, earlier) is not None else None

    def _same_behind_flash(self, start: int, places: range) -> int | None:
        """The first of the places with the picture of ``start``, if all before it have little contrast."""
        start_HW = self._picture(start)
        for index in places:
            picture_HW = self._picture(index)
            if self._likeness(start, index).value >= SAME_SHOT:
                return index
            if contrast(picture_HW) >= MIN_CONTRAST and not self._is_overlit(start_HW, picture_HW):
                return None
        return None

    @staticmethod
    def _is_overlit(before_HW: NDArray[np.float32], picture_HW: NDArray[np.float32]) -> bool:
        """Whether a picture has less contrast than half of the one before a flash."""
        return contrast(picture_HW) < 0.5 * contrast(before_HW)

    @property
    def _newest(self) -> int:
        return self._first + len(self._recent) - 1

    def _frame(self, index: int) -> NDArray[np.uint8]:
        """A recent frame as HSV, or the nearest one that there is."""
        return self._recent[min(max(index, self._first), self._newest) - self._first]

    def _picture(self, index: int) -> NDArray[np.float32]:
        """The value of a recent frame, or of the nearest one that there is."""
        index = min(max(index, self._first), self._newest)
        if index not in self._small:
            self._small[index] = small_value(self._frame(index))
        return self._small[index]
