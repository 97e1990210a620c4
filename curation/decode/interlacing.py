"""Whether a scene's frames are two half pictures of different moments: seen in the pictures.

Flags lie both ways: progressive films are sent as interlaced by broadcasters, and editors write
interlaced ones without a word. So frames are looked at: where something moves, the lines of the two
fields lie apart like the teeth of a comb. Flags count only where nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

Interlacing = Literal["progressive", "interlaced", "telecined"]

MAX_LINES = 1152
"""No system of interlaced film has more lines: 1080, coded as 1088, or 1152 in the first HDTV."""
COLUMN_STEP = 16
"""Every so many columns of pixels are looked at."""
TOOTH = 10
"""Least distance in luma, 0..255, of a line from both its neighbours (fieldmatch's `cthresh` is
9)."""
MOVED = 6
"""Least change in luma from the frame before where something moves."""
MIN_MOVING_SHARE = 0.004
"""Of the pixels; with fewer a frame says nothing."""
MIN_TEETH_SHARE = 0.03
"""Of the moving pixels, from which a frame is a comb."""
TEETH_RATIO = 3.0
"""Teeth between neighbouring lines over those between lines of one field. Grain and patterns have
as many there; measured on moving textures and grain: 0.3 to 1.2; on combs: 8 and more."""
INTERLACED_SHARE, TELECINED_SHARE = 0.65, 0.15
"""Combs among the moving frames: two of five in film under 3:2 pulldown, all in interlaced video."""
MIN_MOVING_FRAMES = 3
"""With fewer in a scene its flags count."""


@dataclass(frozen=True, slots=True)
class FieldSample:
    """What one frame says."""

    index: int
    is_flagged: bool
    is_comb: bool | None
    """None where nothing moves, or the layout has no plane of luma."""


def field_sample(index: int, frame: VideoFrame, before: VideoFrame | None) -> FieldSample:
    """Look at a frame beside the one before it."""
    luma_HW = _luma(frame)
    before_HW = None if before is None or luma_HW is None else _luma(before)
    if luma_HW is None or before_HW is None or luma_HW.shape != before_HW.shape:
        return FieldSample(index, frame.interlaced_frame, None)
    return FieldSample(index, frame.interlaced_frame, is_comb(luma_HW, before_HW))


def is_comb(luma_HW: NDArray[np.uint8], before_HW: NDArray[np.uint8]) -> bool | None:
    """Whether moving parts of a picture are combs; None where too little moves.

    Args:
        luma_HW: luma, 0..255, of some columns of all lines.
        before_HW: of the frame before.
    """
    import cv2

    inside = slice(2, -2)
    moving_HW = _over(MOVED, cv2.absdiff(luma_HW[inside], before_HW[inside]))
    num_moving = cv2.countNonZero(moving_HW)
    if num_moving < MIN_MOVING_SHARE * moving_HW.size:
        return None
    near = _num_teeth(luma_HW, 1, moving_HW)
    if near <= MIN_TEETH_SHARE * num_moving:
        return False
    return near > TEETH_RATIO * _num_teeth(luma_HW, 2, moving_HW)


def _num_teeth(luma_HW: NDArray[np.uint8], distance: int, moving_HW: Any) -> int:
    """Where something moves: how often a line stands out from those so far above and below."""
    import cv2

    line_HW, above_HW = luma_HW[2:-2], luma_HW[2 - distance : -2 - distance]
    below_HW = luma_HW[2 + distance : luma_HW.shape[0] - 2 + distance]
    # Differences below 0 become 0.
    raised_HW = cv2.subtract(line_HW, cv2.max(above_HW, below_HW))
    sunk_HW = cv2.subtract(cv2.min(above_HW, below_HW), line_HW)
    teeth_HW = _over(TOOTH, cv2.max(raised_HW, sunk_HW))
    return cv2.countNonZero(cv2.bitwise_and(teeth_HW, moving_HW))


def _over(limit: int, picture_HW: Any) -> Any:
    """Where numbers lie over a limit; a mask of 0 and 255."""
    import cv2

    return cv2.threshold(picture_HW, limit, 255, cv2.THRESH_BINARY)[1]


def _luma(frame: VideoFrame) -> NDArray[np.uint8] | None:
    """Luma, 0..255, of every `COLUMN_STEP`-th column; None for layouts without a plane of it."""
    component = frame.format.components[0]
    if frame.height > MAX_LINES or frame.height < 16 or not component.is_luma:
        return None
    if not frame.format.name.startswith(("yuv4", "yuvj4", "nv12", "gray")):
        return None
    plane: Any = frame.planes[0]
    rows_HN = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    if component.bits == 8:
        return np.ascontiguousarray(rows_HN[:, : frame.width : COLUMN_STEP])
    wide_HW = rows_HN.view("<u2")[:, : frame.width : COLUMN_STEP]
    return (wide_HW >> (component.bits - 8)).astype(np.uint8)


def interlacing(samples: Sequence[FieldSample]) -> Interlacing:
    """What a scene is, from frames spread over it."""
    seen = [sample.is_comb for sample in samples if sample.is_comb is not None]
    if len(seen) < MIN_MOVING_FRAMES:
        flagged = sum(sample.is_flagged for sample in samples)
        is_interlaced = flagged * 2 > len(samples) or any(seen)
        return "interlaced" if is_interlaced else "progressive"
    share = sum(seen) / len(seen)
    if share >= INTERLACED_SHARE:
        return "interlaced"
    return "telecined" if share >= TELECINED_SHARE else "progressive"
