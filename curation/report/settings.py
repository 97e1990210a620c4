"""What a report shows, and where it was put."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """What the page of a report shows; the statistics do not depend on it."""

    num_kept_shown: int = 36
    """Kept clips on the contact sheet, 0..200: six rows of six, about 10 KB each."""
    num_rejected_shown: int = 36
    """Rejected clips on the contact sheet, 0..200, spread over the rules that they fail."""
    picture_side_px: int = 256
    """Longer side of a picture on the contact sheet in pixels, 64..384; keyframes have no more."""
    picture_quality: int = 70
    """JPEG quality of those pictures, 1..95; 70 is about 10 KB at 256 px."""
    hide_nsfw_above: float = 0.8
    """Pictures whose nsfw_score (0..1) is higher are left out of the contact sheet, not their card.

    0.8 is where Yahoo's open_nsfw calls a picture explicit with high probability; 1 shows all.
    """

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "num_kept_shown": (0, 200),
            "num_rejected_shown": (0, 200),
            "picture_side_px": (64, 384),
            "picture_quality": (1, 95),
            "hide_nsfw_above": (0.0, 1.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be within {low}..{high}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPaths:
    """Where a report lies, relative to the corpus."""

    page: str
    """The page, index.html."""
    statistics: str
    """The same numbers, statistics.json."""
    rejects: str
    """Every rejected source with its reason, rejected_sources.csv."""
