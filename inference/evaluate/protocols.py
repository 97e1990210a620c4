"""The choices that a score depends on, as dataclasses; those of LaVie's paper as presets.

Numbers are of arXiv 2309.15103, section 5 and its tables. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

CHOICES = {
    "resize_filter": ("bilinear", "bicubic"),
    "value_range": ("-1..1", "0..1", "0..255"),
}


def _check_choice(owner: str, name: str, value: str) -> None:
    if value not in CHOICES[name]:
        raise ValueError(f"{owner}.{name} must be one of {CHOICES[name]}, got {value!r}")


def _check_at_least(owner: Any, minimum: int, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < minimum:
            kind = type(owner).__name__
            raise ValueError(
                f"{kind}.{name} must be at least {minimum}, got {getattr(owner, name)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which frames of a video a feature extractor sees, and how large."""

    num_frames: int = 16
    """Frames of a clip that the extractor sees, at least 1."""
    start_frame: int = 0
    """Index of the first frame taken; 0 is the video's beginning (ours)."""
    frame_stride: int = 1
    """Every how manieth frame is taken, at least 1; 1 keeps the video's own frame rate."""
    crop_px: int = 0
    """Side in pixels of the centre square cut out before resizing; 0 for the largest that fits."""
    resize_px: int = 224
    """Side in pixels of the square that the extractor sees."""
    resize_filter: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resizing, pixel centres aligned (align_corners=False); bilinear is ours."""
    antialias: bool = False
    """Whether the resizing filter widens when it makes a frame smaller; off is ours."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no clip can have."""
        _check_at_least(self, 1, "num_frames", "frame_stride", "resize_px")
        _check_at_least(self, 0, "start_frame", "crop_px")
        _check_choice("View", "resize_filter", self.resize_filter)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrechetProtocol:
    """How FVD and KVD are measured."""

    num_videos: int = 10_100
    """Videos that the protocol asks for; another number is measured and named as a deviation."""
    generated: View = field(default_factory=View)
    """Frames taken of the videos under test."""
    reference: View = field(default_factory=View)
    """Frames taken of the reference videos."""
    value_range: Literal["-1..1", "0..1", "0..255"] = "-1..1"
    """Range of pixel values that the extractor expects."""
    extractor_flags: tuple[str, ...] = ()
    """Keywords passed to the extractor as True, such as 'return_features'."""
    resamples: int = 100
    """Bootstrap resamples of the videos under test; 0 for none (ours)."""
    seed: int = 0
    """Seed of the bootstrap's draws, at least 0 (ours)."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no measurement can have."""
        _check_at_least(self, 1, "num_videos")
        _check_at_least(self, 0, "resamples", "seed")
        _check_choice("FrechetProtocol", "value_range", self.value_range)
        for flag in self.extractor_flags:
            if not flag.isidentifier():
                raise ValueError(f"FrechetProtocol.extractor_flags must be names, got {flag!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsimProtocol:
    """How CLIPSIM is measured."""

    num_videos: int = 2_990
    """Videos that the protocol asks for; another number is measured and named as a deviation."""
    frame_stride: int = 1
    """Every how manieth frame is scored, at least 1; 1 scores all."""
    resamples: int = 1_000
    """Bootstrap resamples of the videos; 0 for none (ours)."""
    seed: int = 0
    """Seed of the bootstrap's draws, at least 0 (ours)."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no measurement can have."""
        _check_at_least(self, 1, "num_videos", "frame_stride")
        _check_at_least(self, 0, "resamples", "seed")


def ucf101() -> FrechetProtocol:
    """Zero-shot FVD on UCF101: 100 videos of each of 101 class names, 16 frames of 320x512.

    A square of 270 is cut from the centre and resized to 224. UCF101's own frames are 240 high, so
    270 cannot be cut from them: the largest centre square is taken (ours).
    """
    return FrechetProtocol(num_videos=10_100, generated=View(crop_px=270), reference=View())


def msrvtt() -> ClipsimProtocol:
    """CLIPSIM on MSR-VTT: 2,990 test videos, one caption each, CLIP ViT-B/32, mean over frames."""
    return ClipsimProtocol(num_videos=2_990)


PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "ucf101": {
        "fvd": {
            "LaVie": 526.30,
            "Make-A-Video": 367.23,
            "Video LDM": 550.61,
            "VideoFusion": 639.90,
            "LVDM": 641.80,
            "MagicVideo": 699.00,
            "CogVideo (English)": 701.59,
        }
    },
    "msrvtt": {
        "clipsim": {
            "Make-A-Video": 0.3049,
            "LaVie": 0.2949,
            "ModelScope": 0.2930,
            "Video LDM": 0.2929,
            "CogVideo (English)": 0.2631,
            "NUWA": 0.2439,
            "GODIVA": 0.2402,
        }
    },
}
"""What the paper prints beside LaVie's own number; for reference, never a target of a test."""


def deviations(chosen: Any, preset: Any, *, num_videos: int) -> list[str]:
    """In words, where a measurement differs from a preset; empty where it does not.

    Args:
        chosen: The protocol that was used.
        preset: The protocol of the paper, of the same class.
        num_videos: Videos that were measured.
    """
    used, paper = _flat(asdict(chosen)), _flat(asdict(preset))
    lines = [
        f"{name} is {used[name]}, the protocol has {paper[name]}"
        for name in sorted(used)
        if used[name] != paper[name] and name not in ("resamples", "seed", "num_videos")
    ]
    if num_videos != preset.num_videos:
        lines.append(f"{num_videos} videos, the protocol has {preset.num_videos}")
    return lines


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
