"""What `lavie encode` encodes of each clip; imports nothing heavy, so that the command line is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """What is encoded of each clip."""

    sizes_px: tuple[tuple[int, int], ...] = ((320, 512),)
    """Height and width of frames; a clip goes to the size nearest to its shape."""
    num_frames: int = 16
    """T, frames of a start (paper: 16)."""
    fps: float = 8.0
    """Frames taken a second of film."""
    starts: int = 1
    """Starts a clip, evenly spaced over what fits; one lies in the middle."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Number format of what is stored; it is computed in fp32."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in ("num_frames", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not self.sizes_px:
            raise ValueError("sizes_px must name a size")
