"""Whether two pictures may be of one shot: moved, or in another light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 64, 36
SAME_SHOT = 0.77
"""Likeness from which two neighbouring frames are of one shot. Of 223 hard cuts between shots of
different scenes (`benchmarks/cuts.py --use tuning`) 222 are below 0.65, where the other goes on with
the same shot; of those within scenes of Big Buck Bunny one is over 0.68 (0.75). Of 1,382 frames of
one shot that change by more than 13 for a pulse, a step of light, a shaken or swept camera 95 % are
over 0.79."""
WHITE = 250.0
"""Value, 0..255, from which a pixel is at the end of its range."""
PLAIN = 6.0
"""Range of value, 0..255, of a bar of one colour, in both pictures."""
BLACK = 8.0
"""Value, 0..255, up to which a line is a black bar's if all of it is: at this size coding noise is averaged
out, and a night shot is brighter."""
FEWEST_LINES = 8
"""Of a picture inside bars, each way; with fewer it is dark rather than barred."""
MIN_CONTRAST = 3.0
"""Standard deviation, 0..255, under which a picture is plain and is like nothing."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two pictures are at best, and whether that is when one of them is moved.

    Args:
        value: correlation, -1 to 1.
        is_moved: by at least a pixel of 64.
    """

    value: float
    is_moved: bool


def small_value(hsv_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The value channel of an HSV picture, max(R, G, B), at 64x36."""
    import cv2

    value_HW = cv2.extractChannel(hsv_HWC, 2)
    small_HW = cv2.resize(value_HW, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small_HW.astype(np.float32)


def small_least(hsv_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """min(R, G, B) of an HSV picture at 64x36: what is left of one whose value is white."""
    import cv2

    small_HWC = cv2.resize(hsv_HWC, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small_HWC[..., 2] * (1 - small_HWC[..., 1] / np.float32(255))


def tint(hsv_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of blue, green and red in an HSV picture."""
    import cv2

    mean_C = np.array(cv2.mean(cv2.cvtColor(hsv_HWC, cv2.COLOR_HSV2BGR))[:3])
    return mean_C / max(1.0, float(mean_C.sum()))


def is_overexposed(value_HW: NDArray[np.float32]) -> bool:
    """Whether more than half of a picture's value, inside its bars, is at the end of its range."""
    inside_HW, _ = _inside_bars(value_HW, value_HW)
    return bool((inside_HW >= WHITE).mean() > 0.5)


def contrast(value_HW: NDArray[np.float32]) -> float:
    """Standard deviation of a picture inside its bars."""
    inside_HW, _ = _inside_bars(value_HW, value_HW)
    return float(inside_HW.std())


def likeness(first_HW: NDArray[np.float32], second_HW: NDArray[np.float32]) -> Likeness:
    """Correlation of two pictures: as they lie, or of the middle of each at its best place in the other.

    Both have the same size, at least 4 pixels each way. A correlation does not see light that changes
    as a whole; the middle half each way is looked for up to a quarter of the picture away, in both
    directions, and the mean of the two counts: the chance that strange pictures fit both ways is
    small. Black bars that both have are left out: they would make any two pictures alike.
    """
    import cv2

    first_HW, second_HW = _inside_bars(first_HW, second_HW)
    if min(first_HW.std(), second_HW.std()) < MIN_CONTRAST:
        return Likeness(0.0, False)
    whole = float(cv2.matchTemplate(first_HW, second_HW, cv2.TM_CCOEFF_NORMED)[0, 0])
    top, left = first_HW.shape[0] // 4, first_HW.shape[1] // 4
    fits, is_moved = [], False
    for middle_HW, other_HW in ((first_HW, second_HW), (second_HW, first_HW)):
        template_HW = np.ascontiguousarray(middle_HW[top:-top, left:-left])
        fit_HW = cv2.matchTemplate(other_HW, template_HW, cv2.TM_CCOEFF_NORMED)
        place = int(fit_HW.argmax())
        fits.append(float(fit_HW.flat[place]))
        is_moved |= place != top * fit_HW.shape[1] + left
    moved = sum(fits) / 2
    return Likeness(max(whole, moved), is_moved and moved > whole)


def _inside_bars(
    first_HW: NDArray[np.float32], second_HW: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both pictures without the lines along their sides that are bars in both, or half of one beside such.

    Bars are black, or have one value on both sides in both pictures.
    """
    pair_2HW = np.stack([first_HW, second_HW])
    lit_HW = pair_2HW.max(axis=0) > BLACK
    rows = np.flatnonzero(_unlike_rim(pair_2HW, lit_HW).any(axis=1))
    turned_HW = _unlike_rim(pair_2HW.swapaxes(1, 2), lit_HW.T)
    columns = np.flatnonzero(turned_HW.any(axis=1))
    if min(len(rows), len(columns)) < FEWEST_LINES:
        return first_HW, second_HW
    if len(rows) == lit_HW.shape[0] and len(columns) == lit_HW.shape[1]:
        return first_HW, second_HW
    inside = tuple(
        slice(lit[0] + bool(lit[0]), lit[-1] + 1 - (lit[-1] < length - 1))
        for lit, length in zip((rows, columns), lit_HW.shape, strict=True)
    )
    return np.ascontiguousarray(first_HW[inside]), np.ascontiguousarray(second_HW[inside])


def _unlike_rim(pair_2HW: NDArray[np.float32], lit_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are not of the value that first and last line have; where they have none, the lit."""
    rim_4W = pair_2HW[:, [0, -1]]
    least, most = float(rim_4W.min()), float(rim_4W.max())
    if most <= BLACK or most - least > PLAIN:
        return lit_HW
    unlike_HW: NDArray[np.bool_] = (np.abs(pair_2HW - (least + most) / 2) > PLAIN).any(axis=0)
    return unlike_HW


def is_same_shot(first_HWC: NDArray[np.uint8] | None, second_HWC: NDArray[np.uint8]) -> bool:
    """Whether two pictures (BGR, of any sizes) may be of one shot, by their likeness; no first one is not."""
    import cv2

    if first_HWC is None:
        return False
    pair = [
        cv2.resize(picture_HWC.max(axis=2), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        for picture_HWC in (first_HWC, second_HWC)
    ]
    return likeness(*(small_HW.astype(np.float32) for small_HW in pair)).value >= SAME_SHOT
