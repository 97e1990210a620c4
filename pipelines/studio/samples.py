"""What a sample is asked with, and the folder of earlier samples."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

OnStep = Callable[[str, int, int], None]
"""Told after each step: the stage, the steps done, the steps of the stage. Raises `Stopped` to end."""

MAX_STEPS = 1000  # diffusion times of the released schedules
MAX_SEED = 2**32 - 1
MOST_SHOWN = 60  # earlier samples on the page; each is a video element of the browser


class Stopped(Exception):
    """The user ended a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample, as the page asks for it."""

    prompt: str
    """What to show."""
    negative_prompt: str = ""
    """What to move away from, in the base stage."""
    stages: tuple[str, ...] = ("base",)
    """Stages in their order; base is always the first."""
    seed: int = 0
    """Seed of all noise."""
    num_steps: int = 50
    """Network calls of each stage; 50 as in LaVie's release."""
    guidance_scale: float = 7.5
    """Weight of the prompt in the base stage; 7.5 as in the release."""
    loras: Mapping[str, float] = field(default_factory=dict)
    """Name of a LoRA -> its weight."""

    def __post_init__(self) -> None:
        """Raise ValueError for a sample that cannot be."""
        if not self.prompt.strip():
            raise ValueError("prompt must say what to show, got nothing")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be 0 to {MAX_SEED}, got {self.seed}")
        if not 1 <= self.num_steps <= MAX_STEPS:
            raise ValueError(f"steps must be 1 to {MAX_STEPS}, got {self.num_steps}")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance must be a number, got {self.guidance_scale}")

    @property
    def file_name(self) -> str:
        """Name of its video: words of the prompt, the seed, and a digest of all settings."""
        settings = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")[:48].strip("-")
        return f"{words or 'video'}-{self.seed}-{digest}.mp4"


class Sampler(Protocol):
    """The cascade, as the page sees it."""

    label: str
    """Weights and device in a few words."""
    stages: dict[str, str]
    """Stages that can be asked for, base first -> what each gives, in words."""
    loras: tuple[str, ...]
    """Names of the LoRAs that can be asked for."""

    def sample(self, request: Request, path: Path, step: OnStep) -> None:
        """Write the video and, beside it, the JSON file that describes it.

        Raises:
            LavieError: Something that the user must see to.
            ValueError: A setting is out of its range.
            Stopped: ``step`` said so; nothing was written.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierSample:
    """One of the earlier samples."""

    path: Path
    """Its video."""
    description: Mapping[str, Any]
    """What the file beside it says."""

    @property
    def caption(self) -> str:
        """Prompt and seed."""
        return f"{self.description.get('prompt', self.path.stem)} ({self.description.get('seed', '?')})"


def earlier_samples(folder: Path) -> list[EarlierSample]:
    """Videos of a folder that have a description beside them, the newest first.

    A description that is no JSON object belongs to something else; its video is not shown.
    """
    found = []
    for path in folder.glob("*.mp4"):
        beside = path.with_name(f"{path.name}.json")
        try:
            held = json.loads(beside.read_text(encoding="utf-8"))
            modified_ns = path.stat().st_mtime_ns
        except (OSError, ValueError):
            continue
        if isinstance(held, dict):
            found.append((modified_ns, EarlierSample(path=path, description=held)))
    found.sort(key=lambda pair: (pair[0], pair[1].path.name), reverse=True)
    return [sample for _, sample in found[:MOST_SHOWN]]
