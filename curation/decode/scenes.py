"""Where scenes begin and end: transitions become spans of frames.

A *transition* is what lies between two shots: nothing (a hard cut), some black (a fade), a blend (a
dissolve). A *scene* is what lies between two transitions, shortened by some frames at each, cut
into pieces where it is too long. The decoding pass can declare an edge by itself, where the stream
goes on with something else; no finder looks across it. Everything counts in frames of the decoding
order; times come from the frames' own timestamps, so a variable frame rate changes nothing. Finders
of transitions are in `curation.decode.cuts` (PySceneDetect's detectors) and `curation.decode.transnet`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.decode.timeline import Timeline

Boundary = Literal[
    "start", "cut", "fade", "dissolve", "wipe", "damage", "discontinuity", "stride", "end"
]
TRIMMED: frozenset[str] = frozenset({"cut", "fade", "dissolve", "wipe", "damage"})
"""Edges whose neighbours may be touched: detectors are a frame or two off at times, and B-frames are
made from a damaged picture behind them. All others are exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneConfig:
    """How transitions are found and what counts as a scene."""

    detector: Literal["scenedetect", "transnet"] = "scenedetect"
    """'scenedetect': PySceneDetect's Content, Adaptive and Threshold detectors and a test for
    dissolves; 'transnet': TransNetV2 (arXiv 2008.04838), better on dissolves, ten times the
    time."""
    content_threshold: float = 27.0
    """ContentDetector: mean change of hue, saturation and value, 0..255 (PySceneDetect's
    default)."""
    adaptive_threshold: float = 3.0
    """AdaptiveDetector: change over the mean change of two frames before and after (its
    default)."""
    adaptive_min_content: float = 15.0
    """AdaptiveDetector: change below which nothing is a cut, 0..255 (its default)."""
    fade_threshold: float = 12.0
    """ThresholdDetector: mean of R, G, B below which a frame is black, 0..255 (its default)."""
    dissolves: bool = True
    """Also look for dissolves and wipes of 0.3 to 2.8 s, which the detectors above miss."""
    flash_s: float = 0.25
    """A picture that comes back within this time was a flash or a glitch, not a cut."""
    transnet_threshold: float = 0.5
    """TransNetV2: probability from which a frame belongs to a transition (its README)."""
    min_s: float = 2.0
    """Shorter scenes stay rows, rejected as 'too_short': 16 frames at the 8 fps of training."""
    min_frames: int = 16
    """Scenes of fewer frames are rejected as 'too_short': LaVie's models see 16 (arXiv 2309.15103)."""
    max_s: float = 16.0
    """Longer scenes are cut into pieces of at most this length (Movie Gen, arXiv 2410.13720, and Allegro,
    arXiv 2410.15458: up to 16 s)."""
    trim_frames: int = 3
    """Frames left out on each side of a transition (Step-Video-T2V, arXiv 2502.10248: 3)."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("content_threshold", self.content_threshold, 0, 255),
            ("adaptive_threshold", self.adaptive_threshold, 1, 255),
            ("adaptive_min_content", self.adaptive_min_content, 0, 255),
            ("fade_threshold", self.fade_threshold, 0, 255),
            ("flash_s", self.flash_s, 0, 2),
            ("transnet_threshold", self.transnet_threshold, 0, 1),
            ("min_s", self.min_s, 0, 3600),
            ("min_frames", self.min_frames, 1, 100_000),
            ("max_s", self.max_s, max(0.1, self.min_s), 36_000),
            ("trim_frames", self.trim_frames, 0, 1000),
        ):
            if not low <= value <= high:
                raise ValueError(f"scenes {name} must be {low} to {high}, got {value}")


@dataclass(frozen=True, slots=True, order=True)
class Transition:
    """What lies between two shots.

    Args:
        end: the shot before ends in front of this frame.
        start: the shot after begins with this frame; ``end`` for a hard cut.
        kind: 'cut', 'fade', 'dissolve' or 'wipe'.
        confidence: as in the column `cut_in_confidence`.
    """

    end: int
    start: int
    kind: Boundary = "cut"
    confidence: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """Frames ``[start, end)`` and what lies at either end; the rest as in the columns."""

    start: int
    end: int
    cut_in: Boundary
    cut_out: Boundary
    reject: str | None
    cut_in_confidence: float | None = None
    cut_out_confidence: float | None = None
    shot: int = 0


class TransitionFinder(Protocol):
    """Finds transitions in a stream of small pictures, whose first is frame 0."""

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""

    def push(self, picture_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame's analysis picture (BGR); report what has become certain."""

    def set_rate(self, fps: Fraction) -> None:
        """From here on frames come at another rate: what is meant in seconds is as many more."""

    def finish(self) -> list[Transition]:
        """Report the rest; there are no more frames."""


Finders = Callable[[Fraction], TransitionFinder]
"""Makes the finder of transitions for pictures at the given frame rate."""


class SceneCutter:
    """Turns transitions into scenes while frames stream by.

    Args:
        config: what counts as a scene.
        timeline: filled by the caller, always as far as the frames that the finder has seen.
    """

    def __init__(self, config: SceneConfig, timeline: Timeline) -> None:
        self._config = config
        self._timeline = timeline
        self._max_ticks = max(1, int(Fraction(config.max_s) / timeline.time_base))
        self._start = 0
        self._cut_in: Boundary = "start"
        self._confidence: float | None = None
        self._shot = 0

    def advance(self, transitions: Iterable[Transition], *, settled: int) -> list[Scene]:
        """Scenes that are complete now.

        Args:
            transitions: newly found, in order.
            settled: as `TransitionFinder.settled`.
        """
        scenes = []
        for transition in transitions:
            scenes += self._pieces(transition.end, transition.kind, transition.confidence)
            self._begin(transition.start, transition.kind, transition.confidence)
        return scenes + self._strides(settled - self._config.trim_frames)

    def edge(self, transitions: Iterable[Transition], kind: Boundary) -> list[Scene]:
        """The rest, up to the last frame so far; the next frame begins a scene.

        Args:
            transitions: the last ones before the edge, in order.
            kind: what ends the scene before it and begins the one after it.
        """
        scenes = self.advance(transitions, settled=0) + self._pieces(len(self._timeline), kind)
        self._begin(len(self._timeline), kind)
        return scenes

    def go_on(self) -> None:
        """What begins behind the last edge is of the shot before it."""
        self._shot -= 1

    def _begin(self, start: int, cut_in: Boundary, confidence: float | None = None) -> None:
        """The next piece begins here."""
        self._start, self._cut_in, self._confidence = start, cut_in, confidence
        self._shot += cut_in != "stride"

    def _pieces(self, end: int, cut_out: Boundary, confidence: float | None = None) -> list[Scene]:
        """The current shot up to ``end``, in pieces no longer than the maximum."""
        scenes = self._strides(end - self._trim(cut_out))
        if end > self._start:
            scenes.append(self._scene(end, cut_out, confidence))
            self._start = end
        return scenes

    def _strides(self, settled: int) -> list[Scene]:
        """Pieces of at most the maximum length that end before ``settled``."""
        scenes, timeline = [], self._timeline
        while self._start < min(settled, len(timeline)):
            first = self._start + self._trim(self._cut_in)
            if first >= settled:
                break
            limit = timeline.pts[first] + self._max_ticks
            if timeline.end(settled) <= limit:
                break
            # The last frame that begins within the limit is where the piece ends.
            end = max(first + 1, bisect_right(timeline.pts, limit, first) - 1)
            if end >= settled:
                break
            scenes.append(self._scene(end, "stride"))
            self._begin(end, "stride")
        return scenes

    def _scene(self, end: int, cut_out: Boundary, confidence: float | None = None) -> Scene:
        """Frames up to ``end``, trimmed at transitions where enough are left."""
        start, last = self._start + self._trim(self._cut_in), end - self._trim(cut_out)
        if last <= start:
            start, last = self._start, end
        reject = self._reject(start, last)
        return Scene(
            start, last, self._cut_in, cut_out, reject, self._confidence, confidence, self._shot
        )

    def _trim(self, boundary: Boundary) -> int:
        return self._config.trim_frames if boundary in TRIMMED else 0

    def _reject(self, start: int, end: int) -> str | None:
        ticks = self._timeline.end(end) - self._timeline.at(start)
        seconds = ticks * self._timeline.time_base
        is_short = seconds < Fraction(self._config.min_s) or end - start < self._config.min_frames
        return "too_short" if is_short else None
