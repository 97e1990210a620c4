"""Which way up a picture is shown: mirrored or not, then turned by quarters."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True, slots=True)
class Orientation:
    """What is done to a stored picture to show it."""

    mirrored: bool = False
    """Left and right are exchanged, before the turn."""
    turn_deg: int = 0
    """Clockwise turn: 0, 90, 180 or 270."""

    @property
    def swaps_sides(self) -> bool:
        """Whether width becomes height."""
        return self.turn_deg % 180 != 0


_MATRIX = struct.Struct("=9i")
"""A display matrix in libav's order: a b u c d v x y w."""
UPRIGHT = Orientation()
EXIF_ORIENTATIONS = {
    1: UPRIGHT,
    2: Orientation(True, 0),
    3: Orientation(False, 180),
    4: Orientation(True, 180),
    5: Orientation(True, 270),
    6: Orientation(False, 90),
    7: Orientation(True, 90),
    8: Orientation(False, 270),
}
"""The tag of Exif 2.32, 4.6.4."""


def orientation_of(frame: VideoFrame) -> Orientation:
    """What the display matrix of a decoded frame asks for, its turn rounded to a quarter.

    The matrix maps ``(x, y)`` to ``(a x + c y, b x + d y)``, y pointing down (ISO/IEC 14496-12,
    6.2.2); a negative determinant mirrors.
    """
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV lists no side data where one kind is newer than it (EXIF, views of 3D films), but it
        # has the turn. A mirrored film of these kinds is not told from a plain one.
        return Orientation(False, round(-frame.rotation / 90) % 4 * 90)
    if matrix is None or matrix.buffer_size < _MATRIX.size:
        return UPRIGHT
    a, b, _, c, d, *_ = _MATRIX.unpack(bytes(matrix)[: _MATRIX.size])
    mirrored = a * d - b * c < 0
    angle = math.atan2(-b, -a) if mirrored else math.atan2(b, a)
    return Orientation(mirrored, round(math.degrees(angle) / 90) % 4 * 90)


def upright(picture_HWC: NDArray[np.uint8], shown: Orientation) -> NDArray[np.uint8]:
    """A stored picture as it is shown."""
    seen_HWC = picture_HWC[:, ::-1] if shown.mirrored else picture_HWC
    return np.ascontiguousarray(np.rot90(seen_HWC, -shown.turn_deg // 90))
