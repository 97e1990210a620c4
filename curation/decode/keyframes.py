"""The frames that stand for a scene: where they lie, how they are kept, and their perceptual hash.

While frames stream by nobody knows yet where the scene will end, so small pictures are held at an
even distance in time, thinned to every second one whenever a scene has too many. What is held is
bounded, however long the scene. Frames are held as decoded while there is room, as most of them are
never asked for: making all of them small costs more than making these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.picture import black_rim, luma

HASH_SIDE = 32
"""Side of the grey picture under the perceptual hash."""
MIN_BAR_SHARE = 0.02
"""Share of the side that a black bar must have for the hash to leave it out: a line at the rim moves no
bit, and comes and goes with the encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframeConfig:
    """Which frames stand for a scene, and how they are stored."""

    num: int = 8
    """Keyframes of a scene, in the middle of as many equal parts of it."""
    short_side_px: int = 384
    """Short side of a keyframe; smaller pictures keep their size."""
    jpeg_quality: int = 90
    """JPEG quality, 1 to 95."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("num", self.num, 1, 64),
            ("short_side_px", self.short_side_px, 32, 2160),
            ("jpeg_quality", self.jpeg_quality, 1, 95),
        ):
            if not low <= value <= high:
                raise ValueError(f"keyframes {name} must be {low} to {high}, got {value}")


class Candidate:
    """A frame that may become a keyframe.

    Args:
        index: number of the frame.
        frame: PyAV frame as decoded.
        shrink: makes one of keyframe size of it, not yet in RGB, not yet upright.
    """

    __slots__ = ("_decoded", "_shrink", "_small", "decoded_bytes", "index")

    def __init__(self, index: int, frame: Any, shrink: Callable[[Any], Any]) -> None:
        self.index = index
        self._decoded = frame
        self._shrink = shrink
        self._small: Any = None
        self.decoded_bytes = sum(plane.buffer_size for plane in frame.planes)
        """What is held to make it small later; 0 once it is."""

    def small(self) -> Any:
        """The frame at keyframe size; from now on only that one is held."""
        if self._decoded is not None:
            self._small = self._shrink(self._decoded)
            self._decoded, self.decoded_bytes = None, 0
        return self._small


class Candidates:
    """Holds candidates until the scene that they belong to is known.

    Args:
        num_recent: newest candidates that are never thinned: a cut reported late may still make
            them the first of a new scene.
        num_old: how many older ones are held before every second one is dropped.
        max_bytes: of frames as decoded; with more, the oldest of them are made small.
    """

    def __init__(self, *, num_recent: int, num_old: int, max_bytes: int) -> None:
        self._num_recent = num_recent
        self._num_old = num_old
        self._max_bytes = max_bytes
        self._decoded: deque[Candidate] = deque()
        self._old: list[tuple[int, Candidate]] = []
        self._recent: deque[tuple[int, Candidate]] = deque()
        self._count = 0
        self._step = 1

    def __len__(self) -> int:
        return len(self._old) + len(self._recent)

    def add(self, candidate: Candidate) -> None:
        """Take the next one, in order of time."""
        self._recent.append((self._count, candidate))
        self._count += 1
        if len(self._recent) > self._num_recent:
            aged = self._recent.popleft()
            if aged[0] % self._step == 0:
                self._old.append(aged)
        self._decoded.append(candidate)
        if len(self._old) > self._num_old:
            self._step *= 2
            self._old = [held for held in self._old if held[0] % self._step == 0]
            self._drop_decoded()
        while sum(each.decoded_bytes for each in self._decoded) > self._max_bytes:
            self._decoded.popleft().small()

    def _drop_decoded(self) -> None:
        """Keep hold only of those that may still be asked for."""
        held = (each for _, each in (*self._old, *self._recent))
        self._decoded = deque(each for each in held if each.decoded_bytes)

    def take(self, start_frame: int, end_frame: int, *, num_wanted: int) -> list[Candidate]:
        """``num_wanted`` of the span ``[start_frame, end_frame)``, or all that it has if fewer.

        They and all before are let go.
        """
        held = [*self._old, *self._recent]
        own = [each for each in held if start_frame <= each[1].index < end_frame]
        # Old ones may have been thinned and new ones not: only every step-th is evenly spaced.
        even = [each for each in own if each[0] % self._step == 0]
        row = even if len(even) >= num_wanted else own
        self._old = [each for each in self._old if each[1].index >= end_frame]
        while self._recent and self._recent[0][1].index < end_frame:
            self._recent.popleft()
        self._drop_decoded()
        if not self._old:
            self._step = 1
        return [row[place][1] for place in spread(num_wanted, len(row))]


def spread(num_wanted: int, num_available: int) -> list[int]:
    """Positions of the items in the middle of ``num_wanted`` equal parts of a row of items.

    >>> spread(2, 8)
    [2, 6]
    >>> spread(8, 3)
    [0, 1, 2]
    """
    num = min(num_wanted, num_available)
    return [(2 * part + 1) * num_available // (2 * num) for part in range(num)]


def keyframe_size(
    width: int, height: int, sample_aspect: Fraction, *, short_side_px: int
) -> tuple[int, int]:
    """Width and height of a keyframe, even numbers, square pixels, before it is turned upright."""
    shown_width = width * float(sample_aspect)
    scale = min(1.0, short_side_px / min(shown_width, height))
    even = [max(2, round(side * scale / 2) * 2) for side in (shown_width, height)]
    return min(even[0], 16 * short_side_px), min(even[1], 16 * short_side_px)


def jpeg(picture_HWC: NDArray[np.uint8], *, quality: int) -> bytes:
    """The bytes of a JPEG file of a BGR picture, uint8 ``[H, W, 3]``.

    By OpenCV: Pillow copies the picture twice before it gives it to the same library.
    """
    import cv2

    return cv2.imencode(".jpg", picture_HWC, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def inside_borders(pictures: Sequence[NDArray[np.uint8]]) -> tuple[slice, slice]:
    """Rows and columns between the black bars of a scene; all of them where it has none.

    Bars are black in every picture and as broad on both sides: a dark floor has none above it, and a
    subtitle's black box no other.

    Args:
        pictures: BGR, uint8 ``[H, W, 3]``, one size, at least one.
    """
    rims = [black_rim(luma(each)) for each in pictures]
    height, width = pictures[0].shape[:2]
    # A picture that is black all over says nothing of bars.
    lit = [rim for rim in rims if rim[0] < height] or [(0, 0, 0, 0)]
    top, bottom, left, right = (min(side) for side in zip(*lit, strict=True))
    across, down = min(top, bottom), min(left, right)
    across = across if MIN_BAR_SHARE * height <= across else 0
    down = down if MIN_BAR_SHARE * width <= down else 0
    return slice(across, height - across), slice(down, width - down)


def perceptual_hash(picture_HWC: NDArray[np.uint8]) -> int:
    """64-bit DCT hash of a picture: near-copies differ in few bits (Zauner 2010).

    Bit ``8 v + u`` says whether the DCT-II coefficient of frequency ``(u + 1, v + 1)`` of the 32x32
    grey picture lies over the median of the 64; the row and column of frequency 0 are left out, so
    brightness does not count.

    Args:
        picture_HWC: BGR, uint8 ``[H, W, 3]``, upright.
    """
    import cv2
    from PIL import Image

    grey = Image.fromarray(cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2GRAY))
    # A mean over areas, by steps: a third of the time of OpenCV's INTER_AREA.
    small = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    low = cv2.dct(np.asarray(small, np.float32))[1:9, 1:9].reshape(-1)
    bits = low > np.median(low)
    return int(np.packbits(bits, bitorder="little").view("<u8")[0])
