"""How the camera moves, and how much moves besides it: optical flow as one similarity and a rest.

A camera that turns, tilts, zooms or rolls moves the whole picture alike: at a distance (x, y) from the
middle, in short sides, the flow is ``(tx + s x - r y, ty + s y + r x)``. The four numbers are fitted to
the flow by weighted least squares, again and again with less weight for what does not follow (Cauchy's
weights), so that a person who walks through the picture does not count while most of it is scenery.
Plain surfaces, whose flow is a guess, count little. A camera that travels cannot be told from one that
turns by this: what is called a pan here may be a truck, and a zoom a dolly.

Two kinds of pairs of frames are looked at. Half a second apart, slow movement shows best; the frame
after that tells how fast the picture moves at the moment, which is all that is left to see of a shaken
or swept camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curation.media.orientation import Orientation

CameraMotion = Literal[
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_clockwise",
    "roll_counterclockwise",
    "shake",
    "mixed",
]

GRID = (16, 9)
"""Places, at most, along the longer and the shorter side at which the flow is read."""
NUM_FITS = 5
FLAT = 0.6
"""Mean distance of luma, 0..255, from its blurred self at which a place counts half."""
MIN_TEXTURE = 0.04
"""Mean weight of the places below which a picture is too plain to tell anything."""
MIN_SCALE = 0.002
"""Residual, in short sides, at which a place counts half however well the others fit: a third of a pixel
of 144."""
MIN_FOLLOWING = 0.4
"""Share of the places, by weight, that follow the fit; with fewer it is no camera's."""
STATIC = 0.015
"""Short sides a second below which a camera stands still: the breath of one held by hand is above."""
MAIN_SHARE = 0.6
"""Part of all movement that the largest one must have to name the scene by it."""
MIN_SHAKEN = 3
"""Moments with fewer of which nothing is said of shake."""
SHAKE = 0.12
"""Short sides a second by which moments differ from the mean movement in a shaken scene."""


@dataclass(frozen=True, slots=True)
class CameraFit:
    """Movement of the picture between two frames, through the time between them, 1/s.

    Args:
        right: of the middle of the picture, short sides/s.
        down: likewise.
        grow: relative growth.
        turn: clockwise, radians/s.
        following: share of the places that move like that, 0 to 1.
        rest: mean length of what is left of the flow, short sides/s.
    """

    right: float
    down: float
    grow: float
    turn: float
    following: float
    rest: float

    @property
    def is_camera(self) -> bool:
        """Whether enough of the picture moves like that."""
        return self.following >= MIN_FOLLOWING


class Moved(NamedTuple):
    """How the camera moved from one frame to another, if there is enough to see."""

    first: int
    second: int
    fit: CameraFit | None


def texture(luma_HW: NDArray[np.uint8], places: tuple[int, int]) -> NDArray[np.float32]:
    """Weight of each place, 0 on plain surfaces to 1: float32 ``[rows, columns]``."""
    import cv2

    detail_HW = cv2.absdiff(luma_HW, cv2.blur(luma_HW, (5, 5)))
    mean: Any = cv2.resize(detail_HW, places, interpolation=cv2.INTER_AREA)
    square_HW = mean.astype(np.float32) ** 2
    return square_HW / (square_HW + FLAT**2)


def places_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Columns and rows of places in a picture of this height and width."""
    height, width = shape[:2]
    most = GRID if width >= height else GRID[::-1]
    return min(most[0], width), min(most[1], height)


@cache
def _pixels(columns: int, rows: int, height: int, width: int) -> tuple[NDArray[np.intp], ...]:
    """The pixels in the middle of the places: rows ``[rows, 1]`` and columns ``[1, columns]``."""
    return np.ix_(
        ((np.arange(rows) + 0.5) * height / rows).astype(np.intp),
        ((np.arange(columns) + 0.5) * width / columns).astype(np.intp),
    )


@cache
def _positions(columns: int, rows: int, height: int, width: int) -> NDArray[np.complex64]:
    """Distances of these pixels from the middle, in short sides: x + i y, ``[N]``."""
    y, x = (each + 0.5 for each in _pixels(columns, rows, height, width))
    from_middle = (x - width / 2) + 1j * (y - height / 2)
    return (from_middle.reshape(-1) / min(height, width)).astype(np.complex64)


def fit(
    flow_HW2: NDArray[np.float32], weight_HW: NDArray[np.float32], duration_s: float
) -> CameraFit | None:
    """The movement of the camera in a flow; None where the picture is too plain to tell.

    In complex numbers, x + i y, a similarity is ``t + a p``: ``a`` is its growth and, times i, its turn.

    Args:
        flow_HW2: in pixels, from the earlier picture to the later one.
        weight_HW: of each place of the earlier picture, by `texture`.
        duration_s: time between the two.
    """
    if float(weight_HW.mean()) < MIN_TEXTURE:
        return None
    height, width, _ = flow_HW2.shape
    rows, columns = weight_HW.shape
    few = flow_HW2[_pixels(columns, rows, height, width)].reshape(-1, 2)
    flow_N = few.view(np.complex64)[:, 0] / min(height, width)
    place_N, weight_N = _positions(columns, rows, height, width), weight_HW.reshape(-1)
    middle = _middle(flow_N.real, weight_N) + 1j * _middle(flow_N.imag, weight_N)
    shift, change = complex(middle), 0j
    off_N = np.abs(flow_N - middle)
    for _ in range(NUM_FITS):
        scale = max(MIN_SCALE, _middle(off_N, weight_N))
        shift, change = _similarity(flow_N, place_N, weight_N / (1 + (off_N / scale) ** 2))
        off_N = np.abs(flow_N - (shift + change * place_N))
    # Of the whole way, so that far and fast movement may be as uneven as its length.
    length = abs(shift) + abs(change) / 2
    follows_N = off_N < max(3 * MIN_SCALE, 0.25 * length)
    following = float(weight_N[follows_N].sum() / weight_N.sum())
    # A plain surface may move along or not. And where little follows, nothing is the camera's.
    all_N = np.abs(flow_N)
    plain_N = np.minimum(off_N, all_N)
    rest_N = weight_N * off_N + (1 - weight_N) * plain_N if following >= MIN_FOLLOWING else all_N
    numbers = (shift.real, shift.imag, change.real, change.imag, float(rest_N.mean()))
    right, down, grow, turn, rest = (each / duration_s for each in numbers)
    return CameraFit(right, down, grow, turn, following, rest)


def _similarity(
    flow_N: NDArray[np.complex64], place_N: NDArray[np.complex64], weight_N: NDArray[np.float32]
) -> tuple[complex, complex]:
    """Weighted least squares in closed form, about the weighted middle."""
    total = float(weight_N.sum())
    place, flow = complex(weight_N @ place_N) / total, complex(weight_N @ flow_N) / total
    from_N = (place_N - place).conj()
    spread = float(weight_N @ (from_N.real**2 + from_N.imag**2))
    change = complex((weight_N * from_N) @ flow_N) / spread
    return flow - change * place, change


def _middle(values_N: NDArray[np.float32], weight_N: NDArray[np.float32]) -> float:
    """The weighted median."""
    order = values_N.argsort()
    below_N = weight_N[order].cumsum()
    return float(values_N[order[below_N.searchsorted(below_N[-1] / 2)]])


def scene_camera(
    ways: Sequence[Moved],
    moments: Sequence[Moved],
    size: tuple[int, int],
    orientation: Orientation,
) -> dict[str, float | str | None]:
    """Camera columns of a scene; all null where no pair of its frames shows anything.

    Args:
        ways: between sampled frames of the scene.
        moments: from sampled frames to the ones that follow them.
        size: width and height of the pictures in which they were measured.
        orientation: how the pictures are shown.
    """
    moment_at = {each.first: each.fit for each in moments}
    # Where a way is too long to be followed, the moment in which it begins stands for it.
    best = [_better(way.fit, moment_at.get(way.first)) for way in ways] or [*moment_at.values()]
    fits = [fit for fit in best if fit is not None]
    if not fits:
        return dict.fromkeys(("camera_motion", "camera_speed", "camera_shake", "object_motion"))
    moved = [_as_shown(fit, size, orientation) for fit in fits if fit.is_camera]
    shake = _shake(ways, moment_at)
    return {
        "camera_motion": _name(np.array(moved), shake) if 2 * len(moved) >= len(fits) else "mixed",
        "camera_speed": float(np.linalg.norm(moved, axis=1).mean()) if moved else None,
        "camera_shake": shake,
        "object_motion": float(np.mean([fit.rest for fit in fits])),
    }


def _better(way: CameraFit | None, moment: CameraFit | None) -> CameraFit | None:
    """Of the way and the moment in which it begins, the one that can be followed."""
    return way if way is not None and (way.is_camera or moment is None) else moment


def _name(moved_S4: NDArray[np.float64], shake: float | None) -> CameraMotion:
    """The word for a scene.

    Args:
        moved_S4: of each sample, how the picture moves as shown: right, down, outwards, clockwise;
            short sides/s.
        shake: how much moments differ from it.
    """
    mean_4 = moved_S4.mean(axis=0)
    steady, speed = float(np.linalg.norm(mean_4)), float(np.linalg.norm(moved_S4, axis=1).mean())
    if shake is not None and shake >= SHAKE and shake >= steady:
        return "shake"
    if steady < STATIC:
        return "static" if speed < 3 * STATIC else "mixed"
    largest = int(np.abs(mean_4).argmax())
    if abs(mean_4[largest]) < MAIN_SHARE * max(speed, float(np.abs(mean_4).sum())):
        return "mixed"
    words: tuple[tuple[CameraMotion, CameraMotion], ...] = (
        ("pan_right", "pan_left"),
        ("tilt_down", "tilt_up"),
        ("zoom_out", "zoom_in"),
        ("roll_clockwise", "roll_counterclockwise"),
    )
    # The picture goes the other way than the camera, but grows when it comes nearer.
    return words[largest][int(mean_4[largest] > 0)]


def _as_shown(
    fit: CameraFit, size: tuple[int, int], orientation: Orientation
) -> tuple[float, float, float, float]:
    """How the picture moves as shown: right, down, outwards, clockwise, in short sides/s.

    Growth and turn count as the mean of the way that they move the places of the picture.
    """
    width, height = size
    radius = float(np.abs(_positions(*places_of((height, width)), height, width)).mean())
    right, down, turn = fit.right, fit.down, fit.turn
    if orientation.mirrored:
        right, turn = -right, -turn
    for _ in range(orientation.turn_deg // 90):
        right, down = -down, right
    return right, down, fit.grow * radius, turn * radius


def _shake(ways: Sequence[Moved], moment_at: Mapping[int, CameraFit | None]) -> float | None:
    """How much moments differ from the ways in which they lie: standard deviation, short sides/s.

    By the same amount everywhere they differ where ways are too long to be followed.
    """
    off = []
    for way in ways:
        mean, moment = way.fit, moment_at.get(way.first)
        if mean is not None and moment is not None and mean.is_camera and moment.is_camera:
            off.append((moment.right - mean.right, moment.down - mean.down))
    if len(off) < MIN_SHAKEN:
        return None
    return float(np.sqrt(np.var(off, axis=0, ddof=1).sum()))
