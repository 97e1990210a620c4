"""What a line of text says and how surely: PP-OCR's recogniser, a CTC network.

It knows Latin and Greek letters, digits and the common Chinese characters. Other scripts read as look-alikes,
less surely, but still as a row of characters, which is what tells text from texture.

Letters: H W size of a line, C channels, T steps along the line, K characters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_HEIGHT_PX = 48
MIN_WIDTH_PX, MAX_WIDTH_PX = 320, 1200
"""`RecResizeImg: [3, 48, 320]` of the model's inference.yml; wider lines are given as they are, up to what
holds about a hundred characters."""
UPRIGHT_ASPECT = 1.5
"""A box that is this much higher than wide holds an upright line and is turned (PP-OCR)."""


def corners_in_order(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Corners of a box ``[4, 2]`` as top left, top right, bottom right, bottom left."""
    total, slant = corners.sum(axis=1), corners[:, 1] - corners[:, 0]
    order = [total.argmin(), slant.argmin(), total.argmax(), slant.argmax()]
    return corners[order]


def line_picture(
    picture_HWC: NDArray[np.uint8], corners: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A box of the picture made level, ``[H, W, C]``, BGR, -1 to 1, H = 48.

    Args:
        picture_HWC: RGB.
        corners: of the box, x and y in pixels of the picture.
    """
    import cv2

    quad = corners_in_order(corners)
    width = max(1, round(max(_length(quad[0], quad[1]), _length(quad[3], quad[2]))))
    height = max(1, round(max(_length(quad[0], quad[3]), _length(quad[1], quad[2]))))
    target = np.asarray([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    level: Any = cv2.warpPerspective(
        picture_HWC,
        cv2.getPerspectiveTransform(quad, target),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if height >= UPRIGHT_ASPECT * width:
        level = np.rot90(level)
    scaled_width = round(LINE_HEIGHT_PX * level.shape[1] / level.shape[0])
    size = (min(max(scaled_width, LINE_HEIGHT_PX // 3), MAX_WIDTH_PX), LINE_HEIGHT_PX)
    scaled: NDArray[np.float32] = cv2.resize(level, size).astype(np.float32)
    return scaled[:, :, ::-1] / 127.5 - 1.0


def _length(start: NDArray[np.float32], end: NDArray[np.float32]) -> float:
    return float(np.hypot(*(end - start)))


def decoded(probability_TK: NDArray[np.float32], characters: list[str]) -> tuple[str, float]:
    """Text of a line and the mean probability of its characters, 0 where it has none.

    CTC (Graves 2006): the likeliest character of every step, repetitions and blanks (number 0) left out.
    """
    best = probability_TK.argmax(axis=1)
    is_new = np.concatenate([[True], best[1:] != best[:-1]])
    kept = np.flatnonzero((best != 0) & is_new)
    text = "".join(characters[k] for k in best[kept])
    sureness = probability_TK[kept, best[kept]]
    return text, float(sureness.mean()) if len(kept) else 0.0


def read_characters(path: Path) -> list[str]:
    """The recogniser's characters by number: blank, one a line of the file, space."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return ["", *(line for line in lines if line), " "]


class Reader:
    """The recogniser, loaded."""

    def __init__(self, model: Path, characters: Path, *, num_threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._characters = read_characters(characters)

    def read(
        self, picture_HWC: NDArray[np.uint8], corners: NDArray[np.float32]
    ) -> tuple[str, float]:
        """Text of one box and how surely it was read, 0..1."""
        line_HWC = line_picture(picture_HWC, corners)
        width = max(MIN_WIDTH_PX, line_HWC.shape[1])
        padded_HWC = np.zeros((LINE_HEIGHT_PX, width, 3), np.float32)
        padded_HWC[:, : line_HWC.shape[1]] = line_HWC
        pixels_NCHW = np.ascontiguousarray(padded_HWC.transpose(2, 0, 1)[None])
        return decoded(self._session.run(None, {self._input: pixels_NCHW})[0][0], self._characters)
