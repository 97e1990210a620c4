"""Cutting one clip out of its source: exactly, by re-encoding, or cheaply, by copying packets.

::

    settings    ExportConfig, Clip, Media, and why a clip could not be cut
    exact       re-encode to H.264: exactly the clip's frames
    remux       copy the packets between the first keyframe inside the clip and its end
    still       images, to JPEG
    guarded     the last two in a child process that can reach nothing but the source

`cut` picks among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from curation.export.clips.exact import cut_exact
from curation.export.clips.guarded import ReadStream, cut_copy, cut_image, read_stream
from curation.export.clips.settings import ADMITTED, EXPORT_REJECTS, Clip, ExportConfig, Media
from curation.media.guard import Guard

__all__ = [
    "ADMITTED",
    "EXPORT_REJECTS",
    "Clip",
    "ExportConfig",
    "Media",
    "ReadStream",
    "cut",
    "read_stream",
]


def cut(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard, scratch: Path) -> Media:
    """Cut one clip.

    Args:
        file: the source, open, its digest checked.
        clip: what to cut.
        config: how.
        guard: where libav and Pillow read the source.
        scratch: a folder of this caller alone; what is left in it may be deleted.

    Raises:
        BadSource: with a word of `EXPORT_REJECTS`; the clip becomes a row with that word.
    """
    if clip.is_image:
        return cut_image(file, clip, config, guard)
    if config.cut == "copy":
        return cut_copy(file, clip, config, guard)
    return cut_exact(file, clip, config, scratch)
