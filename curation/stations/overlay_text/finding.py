"""Where a picture may hold lines of text: PP-OCR's detector.

It is a DB network ("Real-time Scene Text Detection with Differentiable Binarization", arXiv 1911.08947):
it gives a map of how likely each pixel lies in the shrunk heart of a line of text, and each heart is grown
back to the line's box.

Letters: H W size of the network's input, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curation.stations.overlay_text.settings import SIZE_STEP_PX, OverlayTextConfig

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, applied to B, G, R in this order: `img_mode: BGR` in the model's inference.yml."""
MIN_HEART_PX = 3
"""Hearts with a side below this are specks (PP-OCR's `min_size`)."""


def detector_input(picture: Image.Image, *, long_side_px: int) -> NDArray[np.float32]:
    """Picture to the detector's ``[1, C, H, W]``, BGR, mean 0 and deviation 1 of ImageNet.

    Small pictures are scaled up: letters of six pixels, as films of 144 lines have them, are too small for a
    network that halves its input five times.
    """
    scale = long_side_px / max(picture.size)
    width, height = (
        max(SIZE_STEP_PX, round(side * scale / SIZE_STEP_PX) * SIZE_STEP_PX)
        for side in picture.size
    )
    resample = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC
    resized = picture.resize((width, height), resample)
    pixels_HWC = np.asarray(resized, np.float32)[:, :, ::-1] / 255.0
    normal_HWC = (pixels_HWC - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(normal_HWC.transpose(2, 0, 1)[None])


def text_boxes(
    probability_HW: NDArray[np.float32], settings: OverlayTextConfig
) -> list[NDArray[np.float32]]:
    """Corners ``[4, 2]`` (x, y in pixels of the map) of the text lines in a probability map.

    The heart of a line, as the network learnt it, is the line shrunk by D = A (1 - r^2) / L;
    growing the heart by D' = A' r' / L' undoes it (arXiv 1911.08947, section 3; A area, L
    perimeter, r' the unclip ratio). PP-OCR offsets the box as a polygon with round corners and
    takes the smallest rectangle around the result: for a rectangle that is the rectangle with D'
    added on each side.
    """
    import cv2

    hearts_HW = (probability_HW > settings.pixel_threshold).astype(np.uint8)
    contours, _ = cv2.findContours(hearts_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < MIN_HEART_PX:
            continue
        corners = np.asarray(cv2.boxPoints((centre, (width, height), angle)), np.float32)
        if _mean_inside(probability_HW, corners) < settings.box_threshold:
            continue
        grown = width * height * settings.unclip_ratio / (2 * (width + height))
        size = (width + 2 * grown, height + 2 * grown)
        boxes.append(np.asarray(cv2.boxPoints((centre, size, angle)), np.float32))
    return boxes


def _mean_inside(probability_HW: NDArray[np.float32], corners: NDArray[np.float32]) -> float:
    """Mean probability over the pixels of a box."""
    import cv2

    mask_HW = np.zeros(probability_HW.shape, np.uint8)
    cv2.fillPoly(mask_HW, [np.rint(corners).astype(np.int32)], 1)
    return float(cv2.mean(probability_HW, mask_HW)[0])


def union_share(boxes: Sequence[NDArray[np.float32]], *, height: int, width: int) -> float:
    """Share of the picture under at least one box, 0..1."""
    import cv2

    mask_HW = np.zeros((height, width), np.uint8)
    for box in boxes:
        cv2.fillPoly(mask_HW, [np.rint(box).astype(np.int32)], 1)
    return float(mask_HW.mean())
