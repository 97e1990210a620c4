"""Bring an image to JPEG."""

from __future__ import annotations

import io
from typing import BinaryIO

from curation.errors import BadSource
from curation.export.clips.settings import Clip, ExportConfig, Media, fitted_size
from curation.media.image import PILLOW_FORMATS, is_srgb, orientation_of_image, upright_rgb
from curation.media.orientation import UPRIGHT


def to_jpeg(file: BinaryIO, clip: Clip, config: ExportConfig) -> Media:
    """The image as an upright 8-bit JPEG of three channels, in sRGB.

    A JPEG that is all that already and not too large is taken over byte for byte, with whatever
    metadata its author left in it; anything else is decoded, turned, made smaller if asked, and
    written without metadata.

    Raises:
        BadSource: 'undecodable' or 'too_many_pixels'.
    """
    from PIL import Image

    size = _target_size(clip, config)
    if size is None and clip.area is None and (final := _taken_over(file, clip)) is not None:
        return final
    picture_HWC, _ = upright_rgb(file, clip.container)
    if clip.area is not None:
        left, top, width, height = clip.area
        picture_HWC = picture_HWC[top : top + height, left : left + width]
    upright = Image.fromarray(picture_HWC)
    if size is not None:
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    subsampling = 0 if config.jpeg_quality >= 90 else 2
    upright.save(buffer, "JPEG", quality=config.jpeg_quality, subsampling=subsampling)
    return _media(buffer.getvalue(), upright.size)


def _target_size(clip: Clip, config: ExportConfig) -> tuple[int, int] | None:
    """Size in px to resize to; None keeps it."""
    limit = config.max_short_side_px
    if limit is None or min(clip.kept_size) <= limit:
        return None
    return fitted_size(*clip.kept_size, limit)


def _taken_over(file: BinaryIO, clip: Clip) -> Media | None:
    """The file as it is, if every reader sees in it what we do; read from its start again."""
    from PIL import Image, UnidentifiedImageError

    if PILLOW_FORMATS[clip.container] != "JPEG":
        return None
    try:
        with Image.open(file, formats=["JPEG"]) as image:
            profile = image.info.get("icc_profile")
            is_final = (
                image.mode == "RGB"
                and orientation_of_image(image) == UPRIGHT
                and (profile is None or is_srgb(profile))
            )
            size = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadSource("undecodable", str(error)) from error
    file.seek(0)
    return _media(file.read(), size) if is_final else None


def _media(data: bytes, size: tuple[int, int]) -> Media:
    return Media(
        extension="jpg",
        data=data,
        num_frames=1,
        fps=None,
        duration_s=0.0,
        width=size[0],
        height=size[1],
    )
