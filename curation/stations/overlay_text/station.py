"""The station; see the package's docstring.

Letters: H W size of the detector's input, C channels, T keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curation.corpus.schema import OVERLAY_TEXT, layer_schema
from curation.stations.keyframe_images import open_keyframe
from curation.stations.overlay_text.finding import detector_input, text_boxes, union_share
from curation.stations.overlay_text.following import Line, is_credits, is_subtitle, laid_over
from curation.stations.overlay_text.reading import Reader
from curation.stations.overlay_text.settings import OverlayTextConfig
from curation.stations.station import Resources, Station
from curation.weights.catalog import (
    PPOCR_CHARACTERS,
    PPOCR_TEXT_DETECTOR,
    PPOCR_TEXT_RECOGNISER,
    Weight,
    find,
)

SMALL_SIDE_PX = 64
"""Side of the grey pictures that tell whether the camera stood still."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """What was found in one keyframe.

    Args:
        lines: that were read.
        num_unread: boxes beyond `max_lines` that count as text unread.
        aspect: width through height of the picture.
        grey_HW: small, 0..255.
    """

    lines: list[Line]
    num_unread: int
    aspect: float
    grey_HW: NDArray[np.float32]

    def share(self, lines: Sequence[Line]) -> float:
        """Share of the picture under some of its lines, 0..1."""
        height = 500
        return union_share(
            [line.corners * height for line in lines],
            height=height,
            width=max(1, round(self.aspect * height)),
        )


def clip_columns(keyframes: Sequence[Keyframe]) -> dict[str, Any]:
    """The layer's columns of one clip; all null without a keyframe."""
    if not keyframes:
        return {column.name: None for column in OVERLAY_TEXT}
    lines = [keyframe.lines for keyframe in keyframes]
    grey_THW = np.stack([keyframe.grey_HW for keyframe in keyframes])
    over = laid_over(lines, grey_THW)
    laid = [
        [line for line, is_over in zip(*pair, strict=True) if is_over]
        for pair in zip(lines, over, strict=True)
    ]
    scene = [
        [line for line, is_over in zip(*pair, strict=True) if not is_over]
        for pair in zip(lines, over, strict=True)
    ]
    shares = [keyframe.share(keyframe.lines) for keyframe in keyframes]
    over_shares = [k.share(own) for k, own in zip(keyframes, laid, strict=True)]
    scene_shares = [k.share(own) for k, own in zip(keyframes, scene, strict=True)]
    credits_seen = is_credits(lines, over)
    subtitles_seen = not credits_seen and any(
        is_subtitle(line, aspect=keyframe.aspect)
        for keyframe, own in zip(keyframes, laid, strict=True)
        for line in own
    )
    return {
        "text_area_share": float(np.mean(shares)),
        "text_area_max": max(shares),
        "text_num_boxes": float(np.mean([len(k.lines) + k.num_unread for k in keyframes])),
        "overlay_text_share": float(np.mean(over_shares)),
        "overlay_text_max": max(over_shares),
        "scene_text_share": float(np.mean(scene_shares)),
        "has_subtitles": subtitles_seen,
        "is_credits": credits_seen,
        "overlay_text": list(dict.fromkeys(line.text for own in laid for line in own)),
    }


class OverlayText(Station[OverlayTextConfig]):
    """Adds how much text there is, how much of it was laid over, and what that reads."""

    name = "overlay_text"
    version = 2
    config_class = OverlayTextConfig
    needs = ("keyframes",)

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(cpus=self.config.num_threads)

    def weights(self) -> Sequence[Weight]:
        """Detector, recogniser and its characters."""
        return [PPOCR_TEXT_DETECTOR, PPOCR_TEXT_RECOGNISER, PPOCR_CHARACTERS]

    def setup(self) -> None:
        """Load both networks."""
        import cv2
        import onnxruntime

        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.config.num_threads
        options.inter_op_num_threads = 1
        self._detector: Any = onnxruntime.InferenceSession(
            str(find(PPOCR_TEXT_DETECTOR)), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._detector.get_inputs()[0].name
        self._reader = Reader(
            find(PPOCR_TEXT_RECOGNISER),
            find(PPOCR_CHARACTERS),
            num_threads=self.config.num_threads,
        )

    def measure(self, picture: Image.Image) -> Keyframe:
        """Find and read the lines of one picture."""
        pixels_NCHW = detector_input(picture, long_side_px=self.config.long_side_px)
        probability_HW = self._detector.run(None, {self._input: pixels_NCHW})[0][0, 0]
        scale = np.divide(picture.size, probability_HW.shape[::-1], dtype=np.float32)
        boxes = [box * scale for box in text_boxes(probability_HW, self.config)]
        boxes.sort(key=_area, reverse=True)
        picture_HWC = np.asarray(picture)
        read = [
            Line(box / picture.height, *self._reader.read(picture_HWC, box))
            for box in boxes[: self.config.max_lines]
        ]
        lines = [line for line in read if self._is_text(line)]
        unread = len(boxes) - len(read)
        small = picture.convert("L").resize(
            (SMALL_SIDE_PX, SMALL_SIDE_PX), Image.Resampling.BOX, reducing_gap=2.0
        )
        return Keyframe(
            lines=lines,
            num_unread=unread if 2 * len(lines) > len(read) else 0,
            aspect=picture.width / picture.height,
            grey_HW=np.asarray(small, np.float32),
        )

    def _is_text(self, line: Line) -> bool:
        """Whether it reads as something."""
        num_characters = sum(character.isalnum() for character in line.text)
        return (
            line.sureness >= self.config.read_threshold
            and num_characters >= self.config.min_characters
        )

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Measure every clip, one keyframe at a time: their sizes differ."""
        rows = [
            clip_columns([self.measure(open_keyframe(data)) for data in row.as_py() or ()])
            for row in clips["keyframes"]
        ]
        for row, clip_id in zip(rows, clips["clip_id"], strict=True):
            row["clip_id"] = clip_id.as_py()
        return pa.Table.from_pylist(rows, schema=layer_schema(self.name))


def _area(box: NDArray[np.float32]) -> float:
    """Area of a box in pixels."""
    import cv2

    return cv2.contourArea(box)
