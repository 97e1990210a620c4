"""Bring an image to JPEG."""

from __future__ import annotations

import io
from typing import BinaryIO

from curation.errors import BadSource
from curation.export.clips.settings import Clip, ExportConfig, Media, fitted_size

PILLOW_FORMATS = {"jpeg_pipe": "JPEG", "png_pipe": "PNG", "webp_pipe": "WEBP"}
"""Container by content -> the only decoder of Pillow that may open it."""
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1


def to_jpeg(file: BinaryIO, clip: Clip, config: ExportConfig) -> Media:
    """The image as an upright 8-bit JPEG of three channels.

    A JPEG that is upright, in colour and not too large is taken over byte for byte, with whatever
    metadata its author left in it; anything else is decoded, turned, made smaller if asked, and
    written without metadata but for its colour profile.

    Raises:
        BadSource: 'undecodable' or 'too_many_pixels'.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file, formats=[PILLOW_FORMATS[clip.container]]) as image:
            size = _target_size(clip, config)
            if _is_final(image, size):
                file.seek(0)
                return _media(file.read(), image.size)
            upright = ImageOps.exif_transpose(image).convert("RGB")
            if size is not None:
                upright = upright.resize(size, Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            upright.save(
                buffer,
                "JPEG",
                quality=config.jpeg_quality,
                subsampling=0 if config.jpeg_quality >= 90 else 2,
                icc_profile=image.info.get("icc_profile"),
            )
    except Image.DecompressionBombError as error:
        raise BadSource("too_many_pixels", str(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadSource("undecodable", str(error)) from error
    return _media(buffer.getvalue(), upright.size)


def _target_size(clip: Clip, config: ExportConfig) -> tuple[int, int] | None:
    """Size in px to resize to; None keeps it."""
    limit = config.max_short_side_px
    if limit is None or min(clip.width, clip.height) <= limit:
        return None
    return fitted_size(clip.width, clip.height, limit)


def _is_final(image: object, size: tuple[int, int] | None) -> bool:
    from PIL.JpegImagePlugin import JpegImageFile

    return (
        type(image) is JpegImageFile
        and size is None
        and image.mode == "RGB"
        and image.getexif().get(EXIF_ORIENTATION, UPRIGHT) == UPRIGHT
    )


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
