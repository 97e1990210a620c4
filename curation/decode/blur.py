"""How blurred a film is at its own size: what a small picture does not show any more.

Crete, Dolmiere, Ladret and Nicolas, "The blur effect" (SPIE 6492, 2007): blur a picture once more; the
differences of neighbouring pixels of a sharp one lose much by it, those of a blurred one little. Looked
at is one square of each sampled frame, in turn at nine places, and what counts for a scene is the lower
quartile, so that what lies out of focus behind a sharp face does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

TILE_PX = 160
"""Side of a square; smaller pictures are looked at whole."""
PLACES = 3
"""Squares along each side of the picture."""
WINDOW_PX = 9
"""Length of the second blur: the paper's."""
FIRST_PX = 3
"""Side of the mean that is taken first, other than in the paper: the steps of one level that rounding
makes of a soft slope look sharp, and so does grain. Without it a blur of 6 px counts less than one of 3."""
MIN_CONTRAST = 4.0
"""Standard deviation of luma, 0..255, under which a square shows only noise."""


def tile_of(frame: VideoFrame, number: int) -> NDArray[np.uint8] | None:
    """Luma of one square of a frame at its own size, uint8 ``[h, w]``; None where it is too plain.

    Args:
        frame: as decoded.
        number: of the sample; the place goes round with it.
    """
    import cv2

    luma_HW = _luma(frame)
    height, width = luma_HW.shape
    row, column = divmod(number % PLACES**2, PLACES)
    top = _start(height, row)
    left = _start(width, column)
    tile_HW = luma_HW[top : top + TILE_PX, left : left + TILE_PX]
    if tile_HW.dtype != np.uint8:
        bits = frame.format.components[0].bits
        tile_HW = (tile_HW >> max(0, bits - 8)).astype(np.uint8)
    tile_HW = np.ascontiguousarray(tile_HW)
    deviation = cv2.meanStdDev(tile_HW)[1]
    return tile_HW if float(deviation[0, 0]) >= MIN_CONTRAST else None


def _start(length: int, place: int) -> int:
    """Where a square begins along a side, so that it lies in the middle of its share of it."""
    middle = (2 * place + 1) * length // (2 * PLACES)
    return max(0, min(length - TILE_PX, middle - TILE_PX // 2))


def _luma(frame: VideoFrame) -> NDArray[Any]:
    """The plane of luma, 8 bits or more; made of the colours where there is none."""
    component = frame.format.components[0]
    if not frame.format.name.startswith(("yuv4", "yuvj4", "nv12", "gray")):
        return frame.reformat(format="gray", threads=1).to_ndarray()
    plane: Any = frame.planes[0]
    sample_bytes = 1 if component.bits == 8 else 2
    return np.ndarray(
        (frame.height, frame.width),
        "<u2" if sample_bytes == 2 else np.uint8,
        buffer=plane,
        strides=(plane.line_size, sample_bytes),
    )


def blur_effect(luma_HW: NDArray[np.uint8]) -> float:
    """Crete's measure of a picture: 0 (sharp) to 1, the larger of both directions."""
    import cv2

    border = cv2.BORDER_REFLECT
    sharp_HW = cv2.blur(luma_HW.astype(np.float32), (FIRST_PX, FIRST_PX), borderType=border)
    effects = []
    for axis in (0, 1):
        window = (1, WINDOW_PX) if axis == 0 else (WINDOW_PX, 1)
        soft_HW: Any = cv2.blur(sharp_HW, window, borderType=border)
        before_HW = _steps(sharp_HW, axis)
        lost_HW: Any = np.maximum(cv2.subtract(before_HW, _steps(soft_HW, axis)), 0)
        total = cv2.sumElems(before_HW)[0]
        effects.append(1 - cv2.sumElems(lost_HW)[0] / total if total else 1.0)
    return max(effects)


def _steps(luma_HW: Any, axis: int) -> Any:
    """Absolute differences of neighbouring pixels."""
    import cv2

    if axis == 0:
        return cv2.absdiff(luma_HW[1:], luma_HW[:-1])
    return cv2.absdiff(luma_HW[:, 1:], luma_HW[:, :-1])


def scene_blur(effects: Sequence[float]) -> float | None:
    """Of a scene, from the squares that show something; None without one."""
    return float(np.percentile(effects, 25)) if effects else None
