"""The same line of text in other keyframes: it stands still, rolls, or goes with the scene.

What is laid over a film stands at one place of the picture while the picture moves, or rolls through it;
a sign moves with what it is fixed to. Where the camera stands still, so does a sign: there only a level
line counts as laid over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

PLACE_TOLERANCE = 0.35
"""How far edges of the same line may lie apart in two keyframes, in heights of the line. Boxes of one
subtitle, found in pictures that move behind it, differ by up to a quarter."""
SIZE_TOLERANCE = 0.7
"""The smaller of two heights through the larger, at least."""
SAME_TEXT = 0.6
"""Similarity (difflib's ratio) from which two readings are of one line; letters are misread."""
LEVEL_DEG = 1.5
"""A line that is turned by no more is level."""
ROLLING_LINES = 3
"""Lines from which a text that moves straight up is a credit roll and not a sign passed by a lift."""
STANDS_STILL = 2.0
"""Mean difference of two keyframes (0..255) below which the camera and all before it stood still."""
SUBTITLE_TOP, SUBTITLE_CENTRE, SUBTITLE_HEIGHT = 0.7, 0.12, 0.1
"""A subtitle's middle lies in the lower 30 % of the picture and within 12 % of its width from its middle
axis; it is no higher than a tenth."""
CREDIT_LINES = 6
"""Lines laid over one keyframe from which it is a page of credits."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of text that was read.

    Args:
        corners: ``[4, 2]``, x and y in heights of the picture.
        text: what it reads.
        sureness: 0..1.
    """

    corners: NDArray[np.float32]
    text: str
    sureness: float

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        (left, top), (right, bottom) = self.corners.min(axis=0), self.corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    @property
    def height(self) -> float:
        """From its top to its bottom."""
        return self.edges[3] - self.edges[1]

    @property
    def turn_deg(self) -> float:
        """How far its long side is from level, 0 to 90."""
        sides = np.roll(self.corners, -1, axis=0) - self.corners
        x, y = sides[np.hypot(sides[:, 0], sides[:, 1]).argmax()]
        return float(np.degrees(np.arctan2(abs(y), abs(x))))


def stands_at(line: Line, other: Line) -> bool:
    """Whether two lines of two keyframes have one place: one height, and left, middle or right agree.

    What they read may differ: sentences follow each other in the place of subtitles.
    """
    height = max(line.height, other.height)
    if min(line.height, other.height) < SIZE_TOLERANCE * height:
        return False
    (left, top, right, bottom), (left_2, top_2, right_2, bottom_2) = line.edges, other.edges
    tolerance = PLACE_TOLERANCE * height
    if abs(top + bottom - top_2 - bottom_2) / 2 > tolerance:
        return False
    apart = (left - left_2, right - right_2, (left + right - left_2 - right_2) / 2)
    return min(abs(distance) for distance in apart) <= tolerance


def same_text(line: Line, other: Line) -> bool:
    """Whether two readings may be of one text."""
    matcher = SequenceMatcher(None, line.text.lower(), other.text.lower(), autojunk=False)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)  # cheap ones first
    return all(bound() >= SAME_TEXT for bound in bounds)


def shift(line: Line, other: Line) -> tuple[float, float]:
    """How far the line has gone, right and down, in heights of the picture."""
    here, there = line.corners.mean(axis=0), other.corners.mean(axis=0)
    return float(there[0] - here[0]), float(there[1] - here[1])


def laid_over(
    keyframes: Sequence[Sequence[Line]], grey_THW: NDArray[np.float32]
) -> list[list[bool]]:
    """For every line of every keyframe, whether it was laid over the picture.

    Args:
        keyframes: the lines of each.
        grey_THW: small grey pictures of the keyframes, 0..255.
    """
    rolling = _rolling(keyframes)
    alone = {
        line: _is_overlay(line, t, keyframes, grey_THW)
        for t, lines in enumerate(keyframes)
        for line in lines
        if line not in rolling[t]
    }
    return [
        [line in rolling[t] or _agreed(line, alone) for line in lines]
        for t, lines in enumerate(keyframes)
    ]


def _agreed(line: Line, alone: Mapping[Line, bool]) -> bool:
    """What most lines of the same text were found to be: a slow sign stands beside its neighbours."""
    votes = [is_over for other, is_over in alone.items() if same_text(line, other)]
    return 2 * sum(votes) >= len(votes)


def _is_overlay(
    line: Line,
    t: int,
    keyframes: Sequence[Sequence[Line]],
    grey_THW: NDArray[np.float32],
) -> bool:
    """Evidence of the other keyframes: each says 'stands', 'goes' or nothing."""
    stands_while_moving, stands, goes = 0, 0, 0
    for other_t, lines in enumerate(keyframes):
        if other_t == t:
            continue
        if any(stands_at(line, other) for other in lines):
            stands += 1
            difference = float(np.abs(grey_THW[t] - grey_THW[other_t]).mean())
            stands_while_moving += difference > STANDS_STILL
        elif any(same_text(line, other) for other in lines):
            goes += 1
    if goes and 2 * goes >= stands:
        return False
    return stands_while_moving > 0 or line.turn_deg <= LEVEL_DEG


def _rolling(keyframes: Sequence[Sequence[Line]]) -> list[set[Line]]:
    """Lines of each keyframe that are in the next or the last one too, straight above or below."""
    rolling: list[set[Line]] = [set() for _ in keyframes]
    for t in range(len(keyframes) - 1):
        pairs = [
            (line, other)
            for line in keyframes[t]
            for other in keyframes[t + 1]
            if same_text(line, other) and not stands_at(line, other)
        ]
        straight = [
            (line, other)
            for line, other in pairs
            if abs(shift(line, other)[0]) <= PLACE_TOLERANCE * line.height
        ]
        if len({line for line, _ in straight}) >= ROLLING_LINES:
            rolling[t].update(line for line, _ in straight)
            rolling[t + 1].update(other for _, other in straight)
    return rolling


def is_subtitle(line: Line, *, aspect: float) -> bool:
    """Whether a line laid over the picture has the place of subtitles.

    Args:
        line: the line.
        aspect: width through height of the picture.
    """
    left, top, right, bottom = line.edges
    return (
        (top + bottom) / 2 >= SUBTITLE_TOP
        and abs((left + right) / 2 / aspect - 0.5) <= SUBTITLE_CENTRE
        and line.height <= SUBTITLE_HEIGHT
    )


def is_credits(keyframes: Sequence[Sequence[Line]], over: Sequence[Sequence[bool]]) -> bool:
    """Whether lines roll through the picture, or a keyframe is a page of them."""
    if any(_rolling(keyframes)):
        return True
    return any(sum(flags) >= CREDIT_LINES for flags in over)
