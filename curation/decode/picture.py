"""What a picture is like without knowing what it shows: light, colour, sharpness, black borders.

Measured on the analysis picture: BGR, square pixels, short side `ANALYSIS_SIDE`. Luma is BT.601's
0.299 R + 0.587 G + 0.114 B, full range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.media.orientation import Orientation

ANALYSIS_SIDE = 144
"""Short side of the analysis picture. 256x144 is the size to which PySceneDetect scales a 16:9 film
before its detectors see it, so that their published thresholds hold."""
MAX_ANALYSIS_ASPECT = 8
"""Longer side of the analysis picture in short sides, at most."""
DARK_LUMA, BRIGHT_LUMA = 20, 235
"""The brightness bounds of Allegro's filter (20; arXiv 2410.15458) and of studio white (235)."""
MAX_UNEVEN = 0.2
"""Difference of the bars of a pair, over the wider one."""
MIN_AREA = 0.3
"""Share of a side that bars leave: a film of 2.39:1 in 4:3 keeps over a half of the height."""
BLACK_LINE_MEAN, BLACK_LINE_MAX = 10, 48
"""A row or column is black if its mean and its brightest pixel are at most this. ffmpeg's
cropdetect allows a mean of 24, which takes dark skies for borders; the second number lets ringing
pass."""


@dataclass(frozen=True, slots=True)
class PictureSample:
    """Numbers of one sampled frame; units as the columns of the same names."""

    index: int
    brightness: float
    contrast: float
    dark_share: float
    bright_share: float
    saturation: float
    sharpness: float
    rim: tuple[int, int, int, int]
    """Black rows and columns at the top, bottom, left and right."""


def analysis_size(width: int, height: int, sample_aspect: Fraction) -> tuple[int, int]:
    """Width and height of the analysis picture of a coded frame; never larger than the frame.

    Args:
        width: coded width in pixels.
        height: coded height in pixels.
        sample_aspect: width of a pixel through its height.
    """
    shown_width = width * float(sample_aspect)
    scale = min(1.0, ANALYSIS_SIDE / min(shown_width, height))
    limit = ANALYSIS_SIDE * MAX_ANALYSIS_ASPECT
    small_width = min(limit, max(2, round(shown_width * scale)))
    small_height = min(limit, max(2, round(height * scale)))
    return small_width, small_height


def luma(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of a BGR picture, uint8 ``[H, W]``."""
    import cv2

    return cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def picture_sample(
    index: int, picture_HWC: NDArray[np.uint8], luma_HW: NDArray[np.uint8]
) -> PictureSample:
    """Measure one picture.

    Args:
        index: number of the frame.
        picture_HWC: BGR, uint8 ``[H, W, 3]``.
        luma_HW: its luma.
    """
    import cv2

    mean, deviation = cv2.meanStdDev(luma_HW)
    # Whole numbers up to 2^24 are exact in its float32.
    histogram: Any = cv2.calcHist([luma_HW], [0], None, [256], [0, 256])
    _, laplacian_deviation = cv2.meanStdDev(cv2.Laplacian(luma_HW, cv2.CV_16S))
    blue, green, red = cv2.split(picture_HWC)
    chroma_HW = cv2.subtract(cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red))
    return PictureSample(
        index=index,
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        dark_share=float(histogram[:DARK_LUMA].sum()) / luma_HW.size,
        bright_share=float(histogram[BRIGHT_LUMA + 1 :].sum()) / luma_HW.size,
        saturation=float(cv2.mean(chroma_HW)[0]) / 255,
        sharpness=float(laplacian_deviation[0, 0]) ** 2,
        rim=black_rim(luma_HW),
    )


def black_rim(luma_HW: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Number of black rows and columns at the top, bottom, left and right.

    A picture that is black all over is all top: ``(H, 0, 0, 0)``.
    """
    top, bottom = _black_ends(luma_HW, axis=1)
    if top == luma_HW.shape[0]:
        return top, 0, 0, 0
    left, right = _black_ends(luma_HW[top : luma_HW.shape[0] - bottom], axis=0)
    return top, bottom, left, right


def _black_ends(luma_HW: NDArray[np.uint8], *, axis: int) -> tuple[int, int]:
    """How many lines at the start and at the end are black: rows for axis 1, columns for axis 0."""
    is_lit = luma_HW.max(axis=axis) > BLACK_LINE_MAX
    dark = np.flatnonzero(~is_lit)  # seldom any, and means cost more than maxima
    is_lit[dark] = luma_HW.take(dark, 1 - axis).mean(axis=axis) > BLACK_LINE_MEAN
    lit = np.flatnonzero(is_lit)
    if len(lit) == 0:
        return len(is_lit), 0
    return int(lit[0]), len(is_lit) - 1 - int(lit[-1])


def border_share(rims: Sequence[tuple[int, int, int, int]], size: tuple[int, int]) -> float:
    """Share of the picture that is black rim in every sampled frame, 0..1.

    Args:
        rims: top, bottom, left, right of each frame.
        size: width and height of the pictures.
    """
    width, height = size
    top, bottom, left, right = (min(side) for side in zip(*rims, strict=True))
    inner = max(0, width - left - right) * max(0, height - top - bottom)
    return 1.0 - inner / (width * height)


def picture_area(
    rims: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
    shown: tuple[int, int],
    orientation: Orientation,
) -> list[int]:
    """The part of a shown picture inside black bars: left, top, width, height, in pixels; even numbers.

    Bars come in pairs of about the same width, which a dark sky or a dark floor does not have. A line
    that is black in part goes with them.

    Args:
        rims: top, bottom, left, right of each sampled frame, not turned.
        size: width and height of the pictures in which they were measured.
        shown: width and height as shown.
        orientation: how they are shown.
    """
    width, height = size
    top, bottom, left, right = (min(side) for side in zip(*rims, strict=True))
    if orientation.mirrored:
        left, right = right, left
    for _ in range(orientation.turn_deg // 90):
        top, right, bottom, left = left, top, right, bottom
        width, height = height, width
    rows = _bars((top, bottom), shown[1] / height, shown[1])
    columns = _bars((left, right), shown[0] / width, shown[0])
    return [columns[0], rows[0], shown[0] - sum(columns), shown[1] - sum(rows)]


def _bars(rim: tuple[int, int], scale: float, side: int) -> tuple[int, int]:
    """What is cut off at both ends of a side, in shown pixels; nothing where it is no pair of bars."""
    if min(rim) == 0 or abs(rim[0] - rim[1]) > max(1, MAX_UNEVEN * max(rim)):
        return 0, 0
    first, last = (2 * math.ceil((lines + 1) * scale / 2) for lines in rim)
    return (first, last) if side - first - last >= MIN_AREA * side else (0, 0)


def scene_picture(
    samples: Sequence[PictureSample], size: tuple[int, int]
) -> dict[str, float | None]:
    """Picture columns of a scene from its sampled frames; all null without a sample.

    Args:
        samples: of the frames inside the scene.
        size: width and height of the analysis pictures.
    """
    names = {
        "brightness_mean": "brightness",
        "contrast_mean": "contrast",
        "dark_share": "dark_share",
        "bright_share": "bright_share",
        "saturation_mean": "saturation",
    }
    if not samples:
        return dict.fromkeys((*names, "sharpness", "border_share"))
    means: dict[str, float | None] = {
        column: float(np.mean([getattr(sample, name) for sample in samples]))
        for column, name in names.items()
    }
    return means | {
        "sharpness": float(np.median([sample.sharpness for sample in samples])),
        "border_share": border_share([sample.rim for sample in samples], size),
    }
