"""Station `overlay_text`: how much of the picture lies under text.

Titles, subtitles and logos teach a video model to draw letters; published recipes drop clips with
more than 2 % to 7 % of text (Goku, UltraVideo, Stable Video Diffusion). The detector is PP-OCR's, a
DB network ("Real-time Scene Text Detection with Differentiable Binarization", arXiv 1911.08947): it
gives a map of how likely each pixel lies in the shrunk heart of a line of text, and each heart is
grown back to the line's box.

Known weakness, measured over four films (docs/performance.md): the tiny detector sees a soft blob
of text in one of seven textless keyframes, most of them dark; recall on titles, subtitles and
credits is near 1. Rules should look at the mean over keyframes.

Letters: H W size of the network's input, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curation.corpus.schema import layer_schema
from curation.stations.keyframe_images import map_keyframes, reduced
from curation.stations.station import Resources, Station
from curation.weights.catalog import PPOCR_TEXT_DETECTOR, Weight, find

SIZE_STEP_PX = 32
"""The network halves its input five times."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, applied to B, G, R in this order: `img_mode: BGR` in the model's inference.yml."""
MIN_HEART_PX = 3
"""Hearts with a side below this are specks (PP-OCR's `min_size`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayTextConfig:
    """Settings of the station."""

    long_side_px: int = 640
    """Longest side that the detector sees, rounded to a multiple of 32. At 320 the detector costs a
    third but finds text in only half of the pictures of rolling credits; at 640 in all."""
    pixel_threshold: float = 0.3
    """Probability from which a pixel belongs to text (PaddleOCR's `det_db_thresh`)."""
    box_threshold: float = 0.7
    """Mean probability from which a box counts. The model's inference.yml says 0.4, which serves
    reading, where a false box is read as nothing; 0.7 halves the textless pictures with a box and
    keeps 25 of 26 pictures with overlaid text."""
    unclip_ratio: float = 1.4
    """How far a heart is grown, r' in D' = A' r' / L' (arXiv 1911.08947; the model's
    inference.yml)."""
    num_threads: int = 1
    """Processor threads of one worker; the last digits depend on it."""

    def __post_init__(self) -> None:
        if self.long_side_px < SIZE_STEP_PX:
            raise ValueError(
                f"overlay_text.long_side_px must be at least {SIZE_STEP_PX}, "
                f"got {self.long_side_px}"
            )
        for name in ("pixel_threshold", "box_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"overlay_text.{name} must lie between 0 and 1, got {getattr(self, name)}"
                )
        if self.unclip_ratio <= 0:
            raise ValueError(f"overlay_text.unclip_ratio must be positive, got {self.unclip_ratio}")
        if self.num_threads < 1:
            raise ValueError(f"overlay_text.num_threads must be at least 1, got {self.num_threads}")


def detector_input(picture: Image.Image, *, long_side_px: int) -> NDArray[np.float32]:
    """Picture to the detector's ``[1, C, H, W]``, BGR, mean 0 and deviation 1 of ImageNet."""
    scale = min(1.0, long_side_px / max(picture.size))
    width, height = (
        max(SIZE_STEP_PX, round(side * scale / SIZE_STEP_PX) * SIZE_STEP_PX)
        for side in picture.size
    )
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
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


class OverlayText(Station[OverlayTextConfig]):
    """Adds `text_area_share`, `text_area_max` and `text_num_boxes`."""

    name = "overlay_text"
    version = 1
    config_class = OverlayTextConfig
    needs = ("keyframes",)

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(cpus=self.config.num_threads)

    def weights(self) -> Sequence[Weight]:
        """The detector."""
        return [PPOCR_TEXT_DETECTOR]

    def setup(self) -> None:
        """Load the detector."""
        import cv2
        import onnxruntime

        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.config.num_threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(find(PPOCR_TEXT_DETECTOR)), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def measure(self, picture: Image.Image) -> NDArray[np.float32]:
        """Share of the picture under text and number of boxes, ``[2]``."""
        pixels_NCHW = detector_input(picture, long_side_px=self.config.long_side_px)
        probability_HW = self._session.run(None, {self._input: pixels_NCHW})[0][0, 0]
        boxes = text_boxes(probability_HW, self.config)
        height, width = probability_HW.shape
        return np.asarray([union_share(boxes, height=height, width=width), len(boxes)], np.float32)

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Measure every keyframe of every clip, one at a time: their sizes differ."""
        measured = map_keyframes(
            clips,
            prepare=self.measure,
            compute=lambda batch: batch.astype(np.float32),
            batch_size=256,
        )
        shares = [values[:, :1] for values in measured]
        counts = [values[:, 1:] for values in measured]
        return pa.Table.from_arrays(
            [
                clips["clip_id"],
                reduced(shares, np.mean),
                reduced(shares, np.max),
                reduced(counts, np.mean),
            ],
            schema=layer_schema(self.name),
        )
