"""How fast the picture moves: dense optical flow between frames half a second apart.

A pair of frames has one number, the mean length of its flow in short sides of the picture per
second: the same for the same film at any resolution and frame rate. The flow is DIS (Kroeger et
al., "Fast Optical Flow using Dense Inverse Search", arXiv 1603.03590) on the small analysis
picture; Stable Video Diffusion measures at 2 frames a second too (arXiv 2311.15127).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.camera import CameraFit, Moved, fit, places_of, texture

MIN_FLOW_SIDE = 16
"""Below two patches of DIS (8 px) there is nothing to follow; such a picture counts as still."""
MOMENT_SCALE = 2
"""The flow to the next frame is a quarter of the work at half the size: it is short."""
SAME_CHANGE = 0.05
"""Mean change of luma, 0..255, under which a frame is the one before once more."""
STILL_CHANGE = 1.0
"""Mean change of luma (of 255) below which two frames look the same. A still picture with noise of 2
levels changes by 0.25 at most after x264 at crf 18 to 28; with noise of 4, by 0.05 at crf 23 and by
1.9 at crf 18, where the noise itself is to be seen."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Motion between two sampled frames.

    Args:
        first: index of the earlier frame.
        second: index of the later one.
        speed: mean flow length, short sides/s.
        change: mean absolute difference of luma, 0..255.
        camera: the part of the movement that is the camera's; None where there is too little to see.
    """

    first: int
    second: int
    speed: float
    change: float
    camera: CameraFit | None = None


class FlowMeter:
    """Measures each sampled frame against the one sampled before it, and against the one after it."""

    def __init__(self) -> None:
        import cv2

        # At 256x144 the mean of ULTRAFAST is within 1 % of shifts of 2 to 30 px, like FAST's, at
        # half its time; both see about half of a shift of 40 px (0.55 short sides/s) and more.
        make = cv2.DISOpticalFlow.create
        self._flow: Any = make(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._short_flow: Any = make(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._sampled: Sampled | None = None

    def push(self, index: int, time_s: float, luma_HW: NDArray[np.uint8]) -> Pair | None:
        """Take the next sampled frame; the pair with the one before, None for the first."""
        before, self._sampled = self._sampled, Sampled(index, time_s, luma_HW)
        if before is None:
            return None
        first_HW, duration_s = before.luma_HW, time_s - before.time_s
        change = luma_change(first_HW, luma_HW)
        if min(first_HW.shape) < MIN_FLOW_SIDE:
            return Pair(before.index, index, 0.0, change)
        flow_HW2 = self._flow.calc(first_HW, luma_HW, None)
        speed = _mean_length(flow_HW2) / min(first_HW.shape) / duration_s
        return Pair(before.index, index, speed, change, fit(flow_HW2, before.texture, duration_s))

    def follow(self, index: int, time_s: float, luma_HW: NDArray[np.uint8]) -> Moved | None:
        """Take the frame after the one that was sampled last: how the camera moves at that moment.

        None where both pictures are the same, as frames of film that are sent twice, and where
        pictures are too small.
        """
        import cv2

        before = self._sampled
        assert before is not None, "it follows a sampled frame"
        width, height = (side // MOMENT_SCALE for side in before.luma_HW.shape[::-1])
        if min(width, height) < MIN_FLOW_SIDE:
            return None
        pair = [
            cv2.resize(each_HW, (width, height), interpolation=cv2.INTER_AREA)
            for each_HW in (before.luma_HW, luma_HW)
        ]
        if luma_change(*pair) < SAME_CHANGE:  # type: ignore[arg-type]
            return None
        flow_HW2 = self._short_flow.calc(*pair, None)
        duration_s = time_s - before.time_s
        return Moved(before.index, index, fit(flow_HW2, before.texture, duration_s))


class Sampled:
    """A sampled frame.

    Args:
        index: number of the frame.
        time_s: when it is shown.
        luma_HW: uint8 ``[H, W]``, square pixels.
    """

    def __init__(self, index: int, time_s: float, luma_HW: NDArray[np.uint8]) -> None:
        self.index, self.time_s, self.luma_HW = index, time_s, luma_HW

    @cached_property
    def texture(self) -> NDArray[np.float32]:
        """How much each place of it shows, by `curation.decode.camera.texture`."""
        return texture(self.luma_HW, places_of(self.luma_HW.shape))


def _mean_length(flow_HW2: NDArray[np.float32]) -> float:
    """Of the vectors, in pixels."""
    # Not cv2.magnitude, whose last digit depends on where in memory the array happens to lie.
    right_HW, down_HW = flow_HW2[..., 0], flow_HW2[..., 1]
    length_HW = np.sqrt(right_HW * right_HW + down_HW * down_HW)
    return float(length_HW.mean(dtype=np.float64))


def luma_change(first_HW: NDArray[np.uint8], second_HW: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two lumas, 0..255."""
    import cv2

    return float(cv2.norm(first_HW, second_HW, cv2.NORM_L1)) / first_HW.size


def scene_motion(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Motion columns of a scene from the pairs inside it; all null without a pair."""
    if not pairs:
        return dict.fromkeys(
            ("motion_mean", "motion_p10", "motion_p50", "motion_p90", "still_share")
        )
    speeds = np.array([pair.speed for pair in pairs])
    p10, p50, p90 = np.percentile(speeds, [10, 50, 90])
    return {
        "motion_mean": float(speeds.mean()),
        "motion_p10": float(p10),
        "motion_p50": float(p50),
        "motion_p90": float(p90),
        "still_share": sum(pair.change < STILL_CHANGE for pair in pairs) / len(pairs),
    }
