"""Whether a scene's frames are two half pictures of different moments: seen in the pictures.

Flags lie both ways: progressive films are sent as interlaced by broadcasters, and editors write
interlaced ones without a word. So frames are looked at: where something moves, the lines of the two
fields lie apart like the teeth of a comb. Slow movement leaves no teeth, so few combs are no sign of
film under 3:2 pulldown; its sign is a field that comes twice, while the other one moves on. Flags count
where nothing moves, and where few combs are seen.
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
COLUMNS, COLUMN_STEP = 4, 64
"""So many neighbouring columns of pixels of every so many are looked at: as words they are read in a
quarter of the time of as many single ones."""
FEWEST_PLACES = 8
"""So often at least, where a picture is wide enough for them: of narrow ones too few places would be left
to agree."""
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
ONE_WAY_SHARE = 0.9
"""Stripes as fine as lines are no comb: in one field all lines stand out, in the other none. The teeth of a
comb point both ways, for one edge of what moves is brighter in the later field, the other one darker.
Of the teeth of a column, of the columns of a frame and of the frames of a scene so many have to agree."""
MIN_AGREEING = 5
"""Columns that agree with another one in their frame: single edges do so by chance, one in two."""
INTERLACED_SHARE, COMB_SHARE, FLAGGED_COMB_SHARE = 0.65, 0.15, 0.05
"""Combs among the moving frames: two of five in film under 3:2 pulldown; in interlaced video all, or as
many as move fast enough. From the second share on a scene is no progressive one, from the third if its
frames are flagged as interlaced."""
REPEAT_RATIO = 4.0
"""Moving pixels of one field over those of the other where the other is the one before again; two
moments of one movement have 0.6 to 1.7."""
REPEAT_SHARE = 0.15
"""Such frames among the moving ones: two of five under 3:2 pulldown."""
MIN_MOVING_FRAMES = 3
"""With fewer in a scene its flags count."""


@dataclass(frozen=True, slots=True)
class FieldSample:
    """What one frame says."""

    index: int
    is_flagged: bool
    is_comb: bool | None
    """None where nothing moves, or the layout has no plane of luma."""
    is_repeat: bool = False
    """Whether one of its fields is that of the frame before, and the other is not."""
    num_agreeing: int = 0
    """Of a comb: places whose teeth all point the same way as at another one; -1 if some do not, 0 where
    there are too few."""


def field_sample(index: int, frame: VideoFrame, before: VideoFrame | None) -> FieldSample:
    """Look at a frame beside the one before it."""
    luma_HW = _luma(frame)
    before_HW = None if before is None or luma_HW is None else _luma(before)
    if luma_HW is None or before_HW is None or luma_HW.shape != before_HW.shape:
        return FieldSample(index, frame.interlaced_frame, None)
    return FieldSample(index, frame.interlaced_frame, *_compared(luma_HW, before_HW))


def _compared(
    luma_HW: NDArray[np.uint8], before_HW: NDArray[np.uint8]
) -> tuple[bool | None, bool, int]:
    """`is_comb`, `is_repeat` and `num_agreeing` of a `FieldSample`.

    Args:
        luma_HW: luma, 0..255, of some columns of all lines.
        before_HW: of the frame before.

    Returns:
        None, False and 0 where too little moves.
    """
    import cv2

    luma_HW, before_HW = (each[: each.shape[0] // 2 * 2] for each in (luma_HW, before_HW))
    inside = slice(2, -2)
    moving_HW = _over(MOVED, cv2.absdiff(luma_HW[inside], before_HW[inside]))
    # Lines of both fields side by side.
    width = moving_HW.shape[1]
    pairs_HW = moving_HW.reshape(-1, 2 * width)
    fields = cv2.countNonZero(pairs_HW[:, :width]), cv2.countNonZero(pairs_HW[:, width:])
    num_moving = sum(fields)
    if num_moving < MIN_MOVING_SHARE * moving_HW.size:
        return None, False, 0
    is_repeat = max(fields) > REPEAT_RATIO * min(fields)
    near = _num_teeth(luma_HW, 1, moving_HW)
    if near <= MIN_TEETH_SHARE * num_moving:
        return False, is_repeat, 0
    is_comb = near > TEETH_RATIO * _num_teeth(luma_HW, 2, moving_HW)
    return is_comb, is_repeat, _num_agreeing(luma_HW, moving_HW) if is_comb else 0


def _num_teeth(luma_HW: NDArray[np.uint8], distance: int, moving_HW: Any) -> int:
    """Where something moves: how often a line stands out from those so far above and below."""
    import cv2

    raised_HW, sunk_HW = _heights(luma_HW, distance)
    teeth_HW = _over(TOOTH, cv2.max(raised_HW, sunk_HW))
    return cv2.countNonZero(cv2.bitwise_and(teeth_HW, moving_HW))


def _num_agreeing(luma_HW: NDArray[np.uint8], moving_HW: Any) -> int:
    """`FieldSample.num_agreeing` of a comb."""
    import cv2

    # Teeth at each place [G] that point up in the first field or down in the second, and the others.
    ways_2G: list[Any] = [0, 0]
    for way, height_HW in enumerate(_heights(luma_HW, 1)):
        teeth_HW = cv2.bitwise_and(_over(TOOTH, height_HW), moving_HW)
        teeth_2G = (teeth_HW.reshape(-1, 2, luma_HW.shape[1] // COLUMNS, COLUMNS) > 0).sum((0, 3))
        ways_2G[way] = ways_2G[way] + teeth_2G[0]
        ways_2G[1 - way] = ways_2G[1 - way] + teeth_2G[1]
    all_G = ways_2G[0] + ways_2G[1]
    has_teeth_G = all_G > MIN_TEETH_SHARE * luma_HW.shape[0]
    num_places = int(has_teeth_G.sum())
    most = max(int((has_teeth_G & (way_G > ONE_WAY_SHARE * all_G)).sum()) for way_G in ways_2G)
    if num_places < 2:
        return 0
    return most - 1 if most >= ONE_WAY_SHARE * num_places else -1


def _heights(luma_HW: NDArray[np.uint8], distance: int) -> tuple[Any, Any]:
    """How far each line is brighter than both those so far above and below, and how far darker."""
    import cv2

    line_HW, above_HW = luma_HW[2:-2], luma_HW[2 - distance : -2 - distance]
    below_HW = luma_HW[2 + distance : luma_HW.shape[0] - 2 + distance]
    # Differences below 0 become 0.
    raised_HW = cv2.subtract(line_HW, cv2.max(above_HW, below_HW))
    return raised_HW, cv2.subtract(cv2.min(above_HW, below_HW), line_HW)


def _over(limit: int, picture_HW: Any) -> Any:
    """Where numbers lie over a limit; a mask of 0 and 255."""
    import cv2

    return cv2.threshold(picture_HW, limit, 255, cv2.THRESH_BINARY)[1]


def _luma(frame: VideoFrame) -> NDArray[np.uint8] | None:
    """Luma, 0..255, of `COLUMNS` columns at each place; None for layouts without a plane of it."""
    component = frame.format.components[0]
    if not 16 <= frame.height <= MAX_LINES or frame.width < COLUMNS or not component.is_luma:
        return None
    if not frame.format.name.startswith(("yuv4", "yuvj4", "nv12", "gray")):
        return None
    plane: Any = frame.planes[0]
    sample_bytes = 1 if component.bits == 8 else 2
    step = max(COLUMNS, min(COLUMN_STEP, frame.width // FEWEST_PLACES))
    words_HN: Any = np.ndarray(
        (plane.height, (frame.width - COLUMNS) // step + 1),
        f"<u{COLUMNS * sample_bytes}",
        buffer=plane,
        strides=(plane.line_size, step * sample_bytes),
    )
    luma_HW = np.ascontiguousarray(words_HN).view(f"<u{sample_bytes}")
    if sample_bytes == 1:
        return luma_HW
    return (luma_HW >> (component.bits - 8)).astype(np.uint8)


def interlacing(samples: Sequence[FieldSample], *, start: int = 0) -> Interlacing:
    """What a scene is, from frames spread over it.

    Args:
        samples: frames of the scene.
        start: its first frame; the one before that is of another scene, so the two say nothing.
    """
    moving = [each for each in samples if each.is_comb is not None and each.index > start]
    is_flagged = 2 * sum(each.is_flagged for each in samples) > len(samples)
    num_combs = 0 if _are_stripes(moving) else sum(bool(each.is_comb) for each in moving)
    if len(moving) < MIN_MOVING_FRAMES:
        return "interlaced" if is_flagged or num_combs else "progressive"
    share = num_combs / len(moving)
    if share < (FLAGGED_COMB_SHARE if is_flagged else COMB_SHARE):
        return "progressive"
    has_repeats = sum(each.is_repeat for each in moving) >= REPEAT_SHARE * len(moving)
    return "telecined" if has_repeats and share < INTERLACED_SHARE else "interlaced"


def _are_stripes(samples: Sequence[FieldSample]) -> bool:
    """Whether what looks like combs in a scene is a pattern as fine as lines."""
    told = [each.num_agreeing for each in samples if each.num_agreeing]
    agreeing = [number for number in told if number > 0]
    return sum(agreeing) >= MIN_AGREEING and len(agreeing) >= ONE_WAY_SHARE * len(told)
