"""What `lavie encode` encodes of each clip; imports nothing heavy, so that the command line is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """What is encoded of each clip."""

    sizes_px: tuple[tuple[int, int], ...] = ((320, 512),)
    """Heights and widths of frames in pixels, multiples of 8; a clip goes to the nearest shape."""
    num_frames: int = 16
    """Frames encoded from each start of a clip, T; at least 1 (paper: 16)."""
    fps: float = 8.0
    """Frames taken of a second of film, above 0."""
    pace: Literal["even", "nearest"] = "even"
    """'even' takes every k-th frame (k = film's rate / `fps`, rounded), so that steps are alike; 'nearest'
    keeps `fps` and lets steps differ by a frame."""
    rate_tolerance: float = 0.25
    """How far the rate of a sample may be from `fps` at an even pace, as a share, 0 to below 1; other clips
    are left out."""
    starts: int = 1
    """Start times encoded of each clip, spread evenly over what fits; one lies in the middle."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Number format in which latents and text states are stored; they are computed in fp32."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in ("num_frames", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not 0 <= self.rate_tolerance < 1:
            raise ValueError(f"rate_tolerance must be 0 to below 1, got {self.rate_tolerance}")
        if not self.sizes_px:
            raise ValueError("sizes_px must name a size")
