"""Cutting one clip out of its source: exactly, by re-encoding, or cheaply, by copying packets.

::

    settings    ExportConfig, Clip, Media, and why a clip could not be cut
    exact       re-encode to H.264: exactly the clip's frames
    remux       copy the packets between the first keyframe inside the clip and its end
    still       images, to JPEG

`cut` picks among them.
"""

from __future__ import annotations

from pathlib import Path

from curation.clips.exact import cut_exact
from curation.clips.remux import cut_copy
from curation.clips.settings import EXPORT_REJECTS, Clip, ExportConfig, Media
from curation.clips.still import cut_image

__all__ = ["EXPORT_REJECTS", "Clip", "ExportConfig", "Media", "cut"]


def cut(source: Path, clip: Clip, config: ExportConfig, scratch: Path) -> Media:
    """Cut one clip.

    Args:
        source: local copy of the source whose digest was checked.
        clip: what to cut.
        config: how.
        scratch: an empty folder of this caller alone; whatever is left in it may be deleted.

    Raises:
        BadSource: with a word of `EXPORT_REJECTS`; the clip becomes a row with that word.
    """
    if clip.is_image:
        return cut_image(source, clip, config)
    if config.cut == "copy":
        return cut_copy(source, clip, config, scratch)
    return cut_exact(source, clip, config, scratch)
