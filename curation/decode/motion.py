"""How fast the picture moves: dense optical flow between frames half a second apart.

A pair of frames has one number, the mean length of its flow in short sides of the picture per
second: the same for the same film at any resolution and frame rate. The flow is DIS (Kroeger et
al., "Fast Optical Flow using Dense Inverse Search", arXiv 1603.03590) on the small analysis
picture; Stable Video Diffusion measures at 2 frames a second too (arXiv 2311.15127).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """

    first: int
    second: int
    speed: float
    change: float


class FlowMeter:
    """Measures each sampled frame against the one sampled before it."""

    def __init__(self) -> None:
        import cv2

        # At 256x144 the mean of ULTRAFAST is within 1 % of shifts of 2 to 30 px, like FAST's, at
        # half its time; both see about half of a shift of 40 px (0.55 short sides/s) and more.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._previous: tuple[int, float, NDArray[np.uint8]] | None = None

    def push(self, index: int, time_s: float, luma_HW: NDArray[np.uint8]) -> Pair | None:
        """Take the next sampled frame; the pair with the one before, None for the first."""
        previous, self._previous = self._previous, (index, time_s, luma_HW)
        if previous is None:
            return None
        first, first_s, first_HW = previous
        speed = flow_speed(self._flow, first_HW, luma_HW, duration_s=time_s - first_s)
        return Pair(first, index, speed, luma_change(first_HW, luma_HW))


def flow_speed(
    flow: Any, first_HW: NDArray[np.uint8], second_HW: NDArray[np.uint8], *, duration_s: float
) -> float:
    """Mean length of the optical flow from one picture to another, in short sides per second.

    Args:
        flow: OpenCV's dense flow object.
        first_HW: luma, uint8 ``[H, W]``, square pixels.
        second_HW: the later luma, the same size.
        duration_s: time between the two, > 0.
    """
    short_side = min(first_HW.shape)
    if short_side < MIN_FLOW_SIDE:
        return 0.0
    flow_HW2 = flow.calc(first_HW, second_HW, None)
    # Not cv2.magnitude, whose last digit depends on where in memory the array happens to lie.
    right_HW, down_HW = flow_HW2[..., 0], flow_HW2[..., 1]
    length_HW = np.sqrt(right_HW * right_HW + down_HW * down_HW)
    return float(length_HW.mean(dtype=np.float64)) / short_side / duration_s


MIN_FLOW_SIDE = 16
"""Below two patches of DIS (8 px) there is nothing to follow; such a picture counts as still."""


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
