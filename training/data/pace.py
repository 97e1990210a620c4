"""Which frames of a film make a sample, when the film has another frame rate than the model.

A model of 24 frames a second fed by the nearest frames of a film of 30 sees every fourth step twice
as long as the others. At an even pace every k-th frame is taken, k the film's rate over the model's,
rounded: all steps are alike, and the sample runs a little fast or slow, at a rate that is on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.data.encode_config import EncodeConfig
from training.run_config import SampleConfig

PaceName = Literal["even", "nearest"]

LEAST_SHARE = 0.9
"""Of the model's rate that a film must have at the pace 'nearest': below it, frames would repeat
within a sample. A film at 23.976 trains a model of 24."""
_ROUNDING = 1e-6  # of a share that was written in decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How frames are taken of films of any rate."""

    num_frames: int
    """Frames of a sample, T."""
    fps: float
    """Frames that the model wants of a second of film."""
    name: PaceName
    """'even': every k-th frame; 'nearest': those nearest to exact times."""
    tolerance: float
    """How far a sample's true rate may be from ``fps``, as a share of it; for 'even'."""

    @classmethod
    def of(cls, config: SampleConfig | EncodeConfig) -> Pace:
        """As a run or an encoding is set."""
        return cls(
            num_frames=config.num_frames,
            fps=config.fps,
            name=config.pace,
            tolerance=config.rate_tolerance,
        )

    def rate(self, film_fps: ArrayLike) -> NDArray[np.float64]:
        """Frames that a sample takes of a second of films with these rates, ``[N]``."""
        film_N = np.asarray(film_fps, np.float64)
        if self.name == "nearest":
            return np.full_like(film_N, self.fps)
        return film_N / _strides(film_N, self.fps)

    def is_far(self, film_fps: ArrayLike) -> NDArray[np.bool_]:
        """Films whose samples would not run at the model's rate, ``[N]``."""
        film_N = np.asarray(film_fps, np.float64)
        if self.num_frames == 1:
            return np.zeros(film_N.shape, np.bool_)
        if self.name == "nearest":
            return film_N < LEAST_SHARE * self.fps
        return np.abs(self.rate(film_N) / self.fps - 1) > self.tolerance + _ROUNDING

    def is_short(self, num_frames: ArrayLike, film_fps: ArrayLike) -> NDArray[np.bool_]:
        """Films that have no room for a sample, ``[N]``."""
        film_N = np.asarray(film_fps, np.float64)
        there_N = np.asarray(num_frames, np.float64) - 1
        if self.name == "even":
            needed_N = (self.num_frames - 1) * _strides(film_N, self.fps)
            return (film_N <= 0) | (there_N < needed_N)
        span_N = there_N / np.where(film_N > 0, film_N, np.inf)
        # half a frame of slack: the last frame is the nearest to the time asked for
        slack_N = 0.5 / np.maximum(film_N, self.fps)
        return span_N < (self.num_frames - 1) / self.fps - slack_N

    def times_s(self, row: Mapping[str, Any], share: float) -> list[float]:
        """When the frames of one sample are shown, in seconds from the film's first.

        Args:
            row: `num_frames` and `fps` of the film.
            share: where the sample begins in what leaves room for it, 0 to 1.
        """
        film_fps, last = row["fps"], row["num_frames"] - 1
        if self.name == "nearest":
            start_s = share * max(0.0, last / film_fps - (self.num_frames - 1) / self.fps)
            return [start_s + number / self.fps for number in range(self.num_frames)]
        stride = int(_strides(film_fps, self.fps))
        room = max(0, last - (self.num_frames - 1) * stride)
        start = min(int(share * (room + 1)), room)
        return [(start + number * stride) / film_fps for number in range(self.num_frames)]

    @property
    def longest_s(self) -> float:
        """From the first frame of a sample to the last, of the slowest film that may be used."""
        slow = self.tolerance if self.name == "even" else 0.0
        return (self.num_frames - 1) / (self.fps * (1 - slow))


def _strides(film_fps: ArrayLike, fps: float) -> NDArray[np.float64]:
    """Frames of a film from one of a sample to the next, at an even pace."""
    return np.maximum(1, np.rint(np.asarray(film_fps, np.float64) / fps))
