"""Where the picture hangs inside a scene: a player that stopped, a signal that was lost, a held drawing."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from curation.decode.timeline import Timeline

MAX_CHANGE = 0.255
"""Mean absolute change against the first picture of a stretch, 0..255, up to which it stands: -60 dB, the
default of ffmpeg's freezedetect. A shot without movement has noise of its own and changes more."""
FEW = 8
"""Lines of which one is compared first: what differs enough there needs no look at the others."""
MIN_S = 0.5
"""Shorter stretches do not count: drawings are often held for two or three frames, and film that was made
from fewer frames repeats some."""


class Freezes:
    """Follows stretches of frames that show one and the same picture.

    Args:
        timeline: filled by the caller, always as far as the frames that were seen.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._min_ticks = MIN_S / timeline.time_base
        self._stretches: deque[tuple[int, int]] = deque()
        self._start = 0
        self._picture: NDArray[np.uint8] | None = None

    def push(self, index: int, picture_HWC: NDArray[np.uint8]) -> None:
        """Take the next frame's analysis picture."""
        import cv2

        if self._picture is not None and self._picture.shape == picture_HWC.shape:
            most = MAX_CHANGE * picture_HWC.size
            few = cv2.norm(self._picture[::FEW], picture_HWC[::FEW], cv2.NORM_L1)
            if few <= most and cv2.norm(self._picture, picture_HWC, cv2.NORM_L1) <= most:
                return
        self._close(index)
        self._start, self._picture = index, picture_HWC

    def interrupt(self, index: int) -> None:
        """What comes from this frame on is not compared with what was before it."""
        self._close(index)
        self._start, self._picture = index, None

    def share(self, start: int, end: int) -> float:
        """Of the time of frames ``[start, end)``, what passes in stretches that last `MIN_S` within it.

        Stretches that end before are let go.
        """
        while self._stretches and self._stretches[0][1] <= start:
            self._stretches.popleft()
        newest = self._start, len(self._timeline)
        within = ((max(start, a), min(end, b)) for a, b in (*self._stretches, newest))
        ticks = [self._ticks(first, last) for first, last in within if first < last]
        return sum(each for each in ticks if each >= self._min_ticks) / self._ticks(start, end)

    def _close(self, end: int) -> None:
        """The stretch so far is over in front of this frame."""
        if end > self._start and self._ticks(self._start, end) >= self._min_ticks:
            self._stretches.append((self._start, end))

    def _ticks(self, first: int, last: int) -> int:
        return self._timeline.end(last) - self._timeline.at(first)
