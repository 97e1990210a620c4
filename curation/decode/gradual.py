"""Dissolves and wipes: two shots in one picture, mixed or side by side (rules 4 and 5).

A window of pictures at 32x18, about twelve a second, with the ends A and B is tried as each of:

- a *dissolve*: every picture is ``(1 - w) A + w B`` with a weight that rises (the production model of
  Hampapur, Jain and Weymouth, 1994);
- a *wipe*: every pixel shows A up to its own moment and B from then on, and neighbours change at
  neighbouring moments (an edge, a clock's hand, an iris);
- a *slide*: the picture is a part of A beside a part of B, one of them or both moved along, with a
  seam between.

All three are far from what moves within a shot, whose pixels change many times, or not at all. The
limits were set on `benchmarks/cuts.py --use tuning` and on Big Buck Bunny.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from curation.decode.likeness import SAME_SHOT, likeness
from curation.decode.scenes import Transition

WIDTH, HEIGHT = 32, 18
RATE = 12
"""Pictures a second."""
LENGTHS = ((7, 1), (13, 2), (22, 3), (34, 4))
"""Windows, in steps of `RATE`, and the steps after which each is tried again."""
LONGEST_SLIDE = 22
MIN_CHANGE = 15.0
"""Root mean square change between the mean-free ends, 0..255; AdaptiveDetector's minimum."""
MIN_CONTRAST = 5.0
"""An end with a smaller standard deviation is a plain field: a fade."""
MAX_CORRELATION = 0.75
"""Ends that correlate more are the same shot."""
MAX_WEAK_CORRELATION = 0.5
"""The same of a dissolve or slide, which light that changes, a pan or zoom resemble more."""
MAX_STEP = 0.6
"""Share of the change that happens in one step, over which it is no dissolve or wipe."""
MIN_SECOND_STEP = 0.3
"""Second largest step over the largest, below which it is a cut."""
MIDDLE = (0.08, 0.92)
"""Share of the way at which a picture counts as one between."""
MAX_BLEND_RATIO = 0.4
"""Squared distance of pictures between from the blend, over that of a picture that is half A and
half B side by side, ``w (1 - w)``: 15 of 18 dissolves of 0.8 to 2 s and 17 of 18 shorter ones are
below, and no other window."""
MAX_BLEND_RESIDUAL = 0.08
"""The same over the squared distance of the ends."""
MAX_BLEND_STEP = 3.0
"""Share of the way that one step of a dissolve may go, times its number of steps: at most 2.4 in 27
dissolves. Light that changes before or behind a cut to another shot is 4.6 and more; its darker half
looks like a blend."""
MAX_WIPE_RESIDUAL = 0.06
"""Mean squared distance of pictures between from A before and B after each pixel's moment, likewise."""
MAX_ROUGHNESS = 0.035
"""Mean distance in time of pixels' moments from the median of their neighbours', over the length of the
wipe: 76 of 81 are below, and nothing else in 30 minutes of other edits and ten of a cartoon. What goes by
before a camera that stands still begins at 0.037."""
MIN_WIPED = 0.65
"""Share of pixels that change, so that what comes into a picture and stays is no wipe."""
MAX_WIPE_STEP = 0.45
"""Share of the change that one step of a wipe may have."""
MAX_SLIDE_RESIDUAL = 0.09
MUCH_BETTER = 0.6
"""A window that fits at this share of another's distance tells alone where a wipe begins and ends; of
windows that fit alike the wipe spans both."""
MIN_SEAM = 1.75
"""Change of the picture across the seam of a slide over that between other columns of the ends: a swept
camera sees the same movement without a seam."""
MAX_SLIDE_STEP = 2.5
"""Part of the way that one step of a slide may go, times its number of steps. A picture that comes in
at one side while all of it moves, such as a texture that is turned round, jumps at the end: 6 and more."""
MAX_COVER_RATIO = 0.6
"""A slide of which one shot stays where it is fits at this share of the distance of one that moves both,
or the camera was swept."""


@dataclass(frozen=True, slots=True)
class Found:
    """A window that is a transition: its steps between, and its distance over the limit."""

    kind: Literal["dissolve", "wipe"]
    first: int
    last: int
    distance: float


@dataclass(frozen=True, slots=True)
class End:
    """A picture as an end of windows: each is one of several."""

    mean_free_N: NDArray[np.float32]
    """The picture without the mean of each channel."""
    variance: float

    @classmethod
    def of(cls, picture_N: NDArray[np.float32]) -> End:
        """The end that a picture is, float32 ``[18 * 32 * 3]``, BGR."""
        picture_P3 = picture_N.reshape(-1, 3)
        mean_free_N = (picture_P3 - picture_P3.mean(axis=0)).reshape(-1)
        return cls(mean_free_N, float(mean_free_N @ mean_free_N) / len(mean_free_N))

    def correlation(self, other: End) -> float:
        """How alike both are, whatever their light; 1 where one is plain or they hardly differ."""
        covariance = float(self.mean_free_N @ other.mean_free_N) / len(self.mean_free_N)
        if (
            self.variance + other.variance - 2 * covariance < MIN_CHANGE**2
            or min(self.variance, other.variance) < MIN_CONTRAST**2
        ):
            return 1.0
        return covariance / (self.variance * other.variance) ** 0.5


class Gradual:
    """Finds dissolves and wipes.

    Args:
        fps: frame rate.
        first: number of the first frame.
    """

    def __init__(self, fps: Fraction, *, first: int = 0) -> None:
        self.fps = fps
        self._step = max(1, round(fps / RATE))
        self._capacity = LENGTHS[-1][0] + 1
        # Every picture is written twice, so that any window is one piece of memory.
        self._ring = np.zeros((2 * self._capacity, HEIGHT * WIDTH * 3), np.float32)
        # Squared length of the step to each picture from the one before it, likewise.
        self._steps = np.zeros(2 * self._capacity, np.float32)
        self._ends: list[End | None] = [None] * self._capacity
        self._num = 0
        self._newest = first
        self._open: tuple[int, int, str, float] | None = None
        self._hit_at = first

    @property
    def settled(self) -> int:
        """No transition that is still to be reported begins before this frame."""
        earliest = self._newest - self._capacity * self._step
        return earliest if self._open is None else min(earliest, self._open[0])

    def push(self, index: int, small_HWC: NDArray[np.uint8]) -> list[Transition]:
        """Take the next frame (BGR, 32x18); a transition that is over, if there is one."""
        if index % self._step:
            return []
        self._newest = index
        place = self._num % self._capacity
        self._ring[place] = self._ring[place + self._capacity] = small_HWC.reshape(-1)
        step_1N = (self._ring[place] - self._ring[place - 1])[None]
        step = np.einsum("tn,tn->t", step_1N, step_1N)
        self._steps[place] = self._steps[place + self._capacity] = step[0]
        last = self._ends[place] = End.of(self._ring[place])
        self._num += 1
        done: list[Transition] = []
        for length, every in LENGTHS:
            if self._num > length and self._num % every == 0:
                first = self._ends[(place - length) % self._capacity]
                correlation = 1.0 if first is None else first.correlation(last)
                if correlation > MAX_CORRELATION:
                    continue
                end = place + self._capacity + 1
                found = window(
                    self._ring[end - length - 1 : end], self._steps[end - length : end], correlation
                )
                if found is not None:
                    done += self._add(found, index - length * self._step)
        # Over when the longest window has not hit for two of its turns.
        if self._open is not None and index - self._hit_at > 2 * LENGTHS[-1][1] * self._step:
            done += self.finish()
        return done

    def finish(self) -> list[Transition]:
        """The transition that is open, if there is one."""
        done, self._open = self._open, None
        if done is None:
            return []
        start, end, kind, distance = done
        return [Transition(start, end, kind, 1 - distance / 2)]  # type: ignore[arg-type]

    def _add(self, found: Found, start: int) -> list[Transition]:
        """Put a window's transition to the open one, or behind it."""
        first, last = start + found.first * self._step + 1, start + found.last * self._step
        self._hit_at = self._newest
        done = []
        if self._open is not None and first > self._open[1]:
            done = self.finish()
        if self._open is None:
            self._open = (first, last, found.kind, found.distance)
            return done
        begun, until, kind, distance = self._open
        if kind == found.kind == "dissolve":
            # A window within a long one has mixed ends and sees a part of it.
            self._open = (min(begun, first), max(until, last), kind, min(distance, found.distance))
        elif found.distance < MUCH_BETTER * distance:
            self._open = (first, last, found.kind, found.distance)
        elif found.distance <= distance / MUCH_BETTER:
            kind = found.kind if found.distance < distance else kind
            self._open = (min(begun, first), max(until, last), kind, min(distance, found.distance))
        return done


def window(
    pictures_TN: NDArray[np.float32], steps_T: NDArray[np.float32], correlation: float
) -> Found | None:
    """What a window of pictures is, if it is a transition.

    Args:
        pictures_TN: float32 ``[T, 18 * 32 * 3]``, BGR.
        steps_T: squared length of each step from one of them to the next.
        correlation: of its ends, by `End.correlation`; at most `MAX_CORRELATION`.
    """
    first_N, last_N = pictures_TN[0], pictures_TN[-1]
    way_N = last_N - first_N
    squared = float(way_N @ way_N)
    second_step, largest_step = np.sort(steps_T)[-2:]
    if second_step < MIN_SECOND_STEP * largest_step:
        return None
    is_weak = correlation <= MAX_WEAK_CORRELATION
    change_P = _per_pixel(way_N[None])[0]
    is_wiped = (change_P > 3 * 10**2).mean() >= MIN_WIPED
    if largest_step <= MAX_STEP * squared and (is_weak or is_wiped):
        from_first_TP = _per_pixel(pictures_TN - first_N)
        from_last_TP = _per_pixel(pictures_TN - last_N)
        found = _dissolve(from_first_TP, from_last_TP, squared) if is_weak else None
        if found is None and is_wiped:
            found = _wipe(from_first_TP, from_last_TP, change_P)
        if found is not None:
            return None if is_one_shot(first_N, last_N) else found
    if is_weak and len(pictures_TN) <= LONGEST_SLIDE + 1:
        return slide(pictures_TN, squared)
    return None


def is_one_shot(first_N: NDArray[np.float32], last_N: NDArray[np.float32]) -> bool:
    """Whether the ends are alike when one is moved: a slow camera in light that changes."""
    ends = [end_N.reshape(HEIGHT, WIDTH, 3).max(axis=2) for end_N in (first_N, last_N)]
    return likeness(*ends).value >= SAME_SHOT


def _per_pixel(change_TN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared length of every pixel's change, ``[T, P]``."""
    change_TP3 = change_TN.reshape(len(change_TN), -1, 3)
    return np.einsum("tpc,tpc->tp", change_TP3, change_TP3)


def _dissolve(
    from_first_TP: NDArray[np.float32], from_last_TP: NDArray[np.float32], squared: float
) -> Found | None:
    """Squared distances to both ends give each picture's weight and its distance from the blend."""
    first_T, last_T = from_first_TP.sum(axis=1) / squared, from_last_TP.sum(axis=1) / squared
    weights_T = (first_T - last_T + 1) / 2
    off_T = first_T - weights_T**2
    between_T = (weights_T > MIDDLE[0]) & (weights_T < MIDDLE[1])
    rises = np.diff(weights_T)
    largest = min(0.5, MAX_BLEND_STEP / (between_T.sum() + 1))
    if between_T.sum() < 3 or rises.min() < -0.1 or rises.max() > largest:
        return None
    residual = float(off_T[between_T].mean())
    ratio = float(off_T[between_T].sum() / (weights_T * (1 - weights_T))[between_T].sum())
    distance = max(residual / MAX_BLEND_RESIDUAL, ratio / MAX_BLEND_RATIO)
    if distance > 1:
        return None
    # The even rise of the pictures between, drawn on to both ends.
    places = np.flatnonzero(between_T)
    slope, level = np.polyfit(places, weights_T[between_T], 1)
    first, last = np.floor(-level / slope), np.ceil((1 - level) / slope)
    num = len(weights_T)
    return Found("dissolve", max(0, int(first)), min(num - 1, int(last)), distance)


def _wipe(
    from_first_TP: NDArray[np.float32],
    from_last_TP: NDArray[np.float32],
    change_P: NDArray[np.float32],
) -> Found | None:
    """Whether every pixel changes once, from A to B, and its neighbours at about the same time."""
    num = len(from_first_TP)
    before_TP = np.zeros((num, from_first_TP.shape[1]), np.float32)
    np.cumsum(from_first_TP[:-1], axis=0, out=before_TP[1:])
    after_TP = np.zeros_like(before_TP)
    after_TP[:-1] = np.cumsum(from_last_TP[:0:-1], axis=0)[::-1]
    # The picture at the moment itself counts for neither: an edge may be soft.
    off_TP = before_TP + after_TP
    moment_P = off_TP.argmin(axis=0)
    squared = float(change_P.sum())
    shares_T = np.cumsum(np.bincount(moment_P, weights=change_P, minlength=num) / squared)
    first, last = (int(np.searchsorted(shares_T, share)) for share in (0.02, 0.98))
    largest = float(np.diff(shares_T, prepend=0).max())
    # What still moves at an end of the window is a camera.
    is_whole = first > 0 and first + 3 <= last < num - 1
    if not is_whole or largest > MAX_WIPE_STEP:
        return None
    num_between = int(((shares_T > MIDDLE[0]) & (shares_T < MIDDLE[1])).sum())
    residual = float(off_TP.min(axis=0).sum()) / squared / max(2, num_between)
    rough = roughness(moment_P, change_P) / (last - first)
    distance = max(residual / MAX_WIPE_RESIDUAL, rough / MAX_ROUGHNESS)
    if distance > 1:
        return None
    # The corners that an edge meets first and last may hardly differ.
    spare = 1 + (last - first) // 8
    return Found("wipe", max(0, first - spare), min(num - 1, last + spare), distance)


def roughness(moment_P: NDArray[np.intp], change_P: NDArray[np.float32]) -> float:
    """Mean distance in time between pixels' moments and the median of their neighbours'.

    Pixels count by their change, those of the upper quarter alike. An edge, a hand or a circle passes
    in order, however fast: there it is nearly 0.
    """
    import cv2

    moment_HW = moment_P.reshape(HEIGHT, WIDTH).astype(np.float32)
    weight_HW = np.minimum(change_P, np.percentile(change_P, 75)).reshape(HEIGHT, WIDTH)
    off_HW = np.abs(moment_HW - cv2.medianBlur(moment_HW, 3))
    return float((off_HW * weight_HW).sum() / max(1e-9, weight_HW.sum()))


@cache
def _pairs(num: int) -> NDArray[np.intp]:
    """Which columns of A and B make up the picture of a slide: ``[way, kind, offset, column]``.

    Ways are from the left and from the right; kinds are push, the second over the first, and the first
    off the second. Values are places in ``[column, column of A]``, and behind those in ``[column,
    column of B]``.
    """
    column = np.arange(num)
    table = np.empty((2, 3, num + 1, num), np.intp)
    for way in (0, 1):
        for offset in range(num + 1):
            is_second = column < offset if way == 0 else column >= num - offset
            moved_first = column - offset if way == 0 else column + offset
            moved_second = column + (num - offset) * (1 if way == 0 else -1)
            for kind, (of_first, of_second) in enumerate(
                ((moved_first, moved_second), (column, moved_second), (moved_first, column))
            ):
                seen = np.where(is_second, of_second, of_first).clip(0, num - 1)
                table[way, kind, offset] = column * num + seen + is_second * num * num
    return table


def slide(pictures_TN: NDArray[np.float32], squared: float) -> Found | None:
    """Whether A and B lie beside each other, at least one of them moving along: push, cover, uncover.

    Args:
        pictures_TN: as for `window`.
        squared: squared distance of the ends.
    """
    pictures_THWC = pictures_TN.reshape(-1, HEIGHT, WIDTH, 3)
    best: Found | None = None
    for is_across, num in ((True, WIDTH), (False, HEIGHT)):
        turned = np.moveaxis(pictures_THWC, 2, 1) if is_across else pictures_THWC
        lines_TLN = np.ascontiguousarray(turned).reshape(len(pictures_TN), num, -1)
        own_TL1 = np.einsum("tln,tln->tl", lines_TLN, lines_TLN)[..., None]
        off_TLE = [
            own_TL1 + (end_LN**2).sum(axis=1) - 2 * lines_TLN @ end_LN.T
            for end_LN in (lines_TLN[0], lines_TLN[-1])
        ]
        both_TE = np.concatenate([off.reshape(len(off), -1) for off in off_TLE], axis=1)
        found = _best_slide(both_TE[:, _pairs(num)].sum(axis=-1) / squared, lines_TLN)
        if found is not None and (best is None or found.distance < best.distance):
            best = found
    return best


def _best_slide(cost_TWKO: NDArray[np.float32], lines_TLN: NDArray[np.float32]) -> Found | None:
    """The way and kind whose seam goes through evenly, if there is one.

    Args:
        cost_TWKO: distance of each picture for each way, kind and offset.
        lines_TLN: the pictures by columns or rows.
    """
    num = lines_TLN.shape[1]
    offset_TWK = cost_TWKO.argmin(axis=-1)
    cost_TWK = cost_TWKO.min(axis=-1)
    best: Found | None = None
    for way, kind in np.ndindex(cost_TWK.shape[1:]):
        place_T = offset_TWK[:, way, kind] / num
        between_T = (place_T > MIDDLE[0]) & (place_T < MIDDLE[1])
        if not goes_through(place_T, int(between_T.sum())):
            continue
        push, cost = cost_TWK[between_T, way][:, [0, kind]].mean(axis=0)
        distance = float(cost) / MAX_SLIDE_RESIDUAL
        if distance > 1 or (best is not None and distance >= best.distance):
            continue
        if kind and cost > MAX_COVER_RATIO * push:
            continue
        seams = offset_TWK[between_T, way, kind]
        is_seen = seam_strength(
            lines_TLN, between_T, seams if way == 0 else num - seams, place_T[between_T]
        )
        if is_seen < MIN_SEAM:
            continue
        first = int(np.flatnonzero(place_T <= 0.02).max(initial=0))
        last = int(np.flatnonzero(place_T >= 0.98).min(initial=len(place_T) - 1))
        best = Found("wipe", first, last, distance)
    return best


def goes_through(place_T: NDArray[np.float64], num_between: int) -> bool:
    """Whether a seam goes from one side of the picture to the other, about evenly."""
    rises = np.diff(place_T)
    return bool(
        place_T[0] <= 0.1
        and place_T[-1] >= 0.9
        and num_between >= 2
        and rises.min() >= -0.1
        and rises.max() <= min(0.6, MAX_SLIDE_STEP / (num_between + 1))
    )


def seam_strength(
    lines_TLN: NDArray[np.float32],
    between_T: NDArray[np.bool_],
    seams_K: NDArray[np.intp],
    place_K: NDArray[np.float64],
) -> float:
    """Change of the pictures at a seam over the usual one between neighbouring lines of the ends.

    Args:
        lines_TLN: the pictures by columns or rows.
        between_T: which of them show both shots.
        seams_K: the line of these at which the other shot begins.
        place_K: how much of these is the second shot.
    """
    change_TL = np.abs(np.diff(lines_TLN, axis=1)).mean(axis=2)
    first, last = np.median(change_TL[[0, -1]], axis=1)
    usual_K = np.maximum(1e-3, (1 - place_K) * first + place_K * last)
    at_seam = [
        change_L[max(0, seam - 2) : seam + 1].max()
        for change_L, seam in zip(change_TL[between_T], seams_K.tolist(), strict=True)
    ]
    return float(np.median(np.array(at_seam) / usual_K))
