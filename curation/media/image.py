"""Still images as upright, opaque 8-bit sRGB pictures: for keyframes and for export alike."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from curation.errors import BadSource
from curation.media.orientation import EXIF_ORIENTATIONS, UPRIGHT, Orientation, upright

if TYPE_CHECKING:
    from PIL.Image import Image

PILLOW_FORMATS = {"jpeg_pipe": "JPEG", "png_pipe": "PNG", "webp_pipe": "WEBP"}
"""Container by content -> the only decoder of Pillow that may open it."""
EXIF_ORIENTATION = 0x0112
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes for grey of 16 bits, which it would cut off at 255 rather than scale."""


def orientation_of_image(image: Image) -> Orientation:
    """What its EXIF tag asks for; what is no orientation is upright."""
    return EXIF_ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1), UPRIGHT)


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile is sRGB, by its name; one that cannot be read says nothing."""
    from PIL import ImageCms

    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return True
    return "srgb" in name.lower()


@contextlib.contextmanager
def _opened(file: BinaryIO, container: str) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=[PILLOW_FORMATS[container]]) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise BadSource("too_many_pixels", str(error)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadSource("undecodable", str(error)) from error


def upright_rgb(file: BinaryIO, container: str) -> tuple[NDArray[np.uint8], Orientation]:
    """The picture as it is shown, RGB uint8 ``[H, W, 3]``, and what was done to bring it upright.

    An animation gives its first picture. What can be seen through lies on white; grey of 16 bits is
    scaled; other profiles than sRGB are converted, those of CMYK included.

    Args:
        file: an image, from its start.
        container: one of `PILLOW_FORMATS`.

    Raises:
        BadSource: 'undecodable' or 'too_many_pixels'.
    """
    with _opened(file, container) as image:
        orientation = orientation_of_image(image)
        return upright(_opaque(image), orientation), orientation


def _opaque(image: Image) -> NDArray[np.uint8]:
    """In RGB, on white."""
    if image.mode in DEEP_GREY:
        grey_HW = np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        rgb_HWC = np.asarray(_srgb(clear.convert("RGB"), image.info.get("icc_profile")))
        return on_white(np.dstack([rgb_HWC, np.asarray(clear.getchannel("A"))]))
    return np.asarray(_srgb(image, image.info.get("icc_profile")))


def on_white(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture that can be seen through, before a white wall.

    Args:
        picture_HWC: RGBA, uint8 ``[H, W, 4]``, colours not multiplied by the alpha.

    Returns:
        RGB, uint8 ``[H, W, 3]``.
    """
    alpha_HW = picture_HWC[..., 3:].astype(np.uint16)
    mixed_HWC = picture_HWC[..., :3] * alpha_HW + 255 * (255 - alpha_HW)
    return ((mixed_HWC + 127) // 255).astype(np.uint8)


def _srgb(image: Image, profile: bytes | None) -> Image:
    """In sRGB, by its profile where it has one that can be read and is for such pictures."""
    from PIL import ImageCms

    if profile and image.mode in ("RGB", "CMYK", "L") and not is_srgb(profile):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            assert converted is not None, "it was not asked to convert in place"
            return converted
    return image.convert("RGB")
