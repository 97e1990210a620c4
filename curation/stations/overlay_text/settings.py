"""What can be set."""

from __future__ import annotations

from dataclasses import dataclass

SIZE_STEP_PX = 32
"""The detector halves its input five times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayTextConfig:
    """Settings of the station."""

    long_side_px: int = 640
    """Longest side that the detector sees, rounded to a multiple of 32. At 320 the detector costs a
    third but finds text in only half of the pictures of rolling credits; at 640 in all."""
    pixel_threshold: float = 0.3
    """Probability from which a pixel belongs to text (PaddleOCR's `det_db_thresh`)."""
    box_threshold: float = 0.4
    """Mean probability from which a box is read (the detector's inference.yml). False ones are many
    and read as nothing."""
    unclip_ratio: float = 1.4
    """How far a heart is grown, r' in D' = A' r' / L' (arXiv 1911.08947; the model's
    inference.yml)."""
    read_threshold: float = 0.8
    """Mean probability of its characters from which a line counts as read."""
    min_characters: int = 3
    """Characters from which a line counts as read; textures read as one or two."""
    max_lines: int = 24
    """Lines that are read in a keyframe, the largest first; the rest count as text where most of
    these do. Only credits have more."""
    num_threads: int = 1
    """Processor threads of one worker; the last digits depend on it."""

    def __post_init__(self) -> None:
        if self.long_side_px < SIZE_STEP_PX:
            raise ValueError(
                f"overlay_text.long_side_px must be at least {SIZE_STEP_PX}, "
                f"got {self.long_side_px}"
            )
        for name in ("pixel_threshold", "box_threshold", "read_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"overlay_text.{name} must lie between 0 and 1, got {getattr(self, name)}"
                )
        if self.unclip_ratio <= 0:
            raise ValueError(f"overlay_text.unclip_ratio must be positive, got {self.unclip_ratio}")
        for name in ("min_characters", "max_lines", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"overlay_text.{name} must be at least 1, got {getattr(self, name)}"
                )
