"""A contact sheet: clips that were found, as one picture to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from curation.report.gallery import small_jpeg
from curation.report.settings import ReportConfig

ACROSS = 5
"""Clips in a row."""
GAP_PX = 4


def contact_sheet(clips: Sequence[dict[str, Any]], config: ReportConfig) -> bytes:
    """JPEG bytes of the clips' middle keyframes, row by row; a grey field where none is to be shown.

    Args:
        clips: `keyframes` and, where it was scored, `nsfw_score` of each; at least one.
        config: size and quality of the pictures, and the score over which one is left out.
    """
    from PIL import Image

    side = config.picture_side_px
    across, down = min(ACROSS, len(clips)), -(-len(clips) // ACROSS)
    size = across * (side + GAP_PX) - GAP_PX, down * (side + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", size, "white")
    for place, clip in enumerate(clips):
        left, top = (place % ACROSS) * (side + GAP_PX), (place // ACROSS) * (side + GAP_PX)
        data = _picture(clip, config)
        if data is None:
            sheet.paste("grey", (left, top, left + side, top + side))
        else:
            with Image.open(io.BytesIO(data)) as picture:
                margins = [(side - length) // 2 for length in picture.size]
                sheet.paste(picture, (left + margins[0], top + margins[1]))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=config.picture_quality)
    return out.getvalue()


def _picture(clip: dict[str, Any], config: ReportConfig) -> bytes | None:
    frames = clip["keyframes"] or []
    if not frames or (clip.get("nsfw_score") or 0.0) > config.hide_nsfw_above:
        return None
    middle = frames[len(frames) // 2]
    return small_jpeg(middle, side_px=config.picture_side_px, quality=config.picture_quality)
