"""Station `logos`: logos and watermarks, by what stays while the picture changes.

The edges of a keyframe have a direction at every pixel. Where a logo lies, clip after clip of the source has
the same ones; elsewhere they come and go. What counts at a pixel is the lower quartile over clips, so that a
camera that comes back to one view for half of the time does not look like a logo. Directions are doubled, so
that a grey logo on black and on white has the same; the three colours count together. Where most edges of a
picture stay, as of one camera that stands, nothing can be told: 'unknown'.

Neighbouring clips of one source are looked at together, `CLIPS_TOGETHER` at a time; of a source with one clip
its keyframes take the place of clips.

Letters: N clips, T keyframes, H W size, C 3 colours or 2 numbers of a doubled direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curation.corpus.schema import LOGOS, layer_schema
from curation.stations.keyframe_images import open_keyframe
from curation.stations.station import Station
from curation.weights.catalog import Weight

CLIPS_TOGETHER = 64
"""Of one source, from its first; six minutes of film."""
SHORT_SIDE_PX = 144
FLAT = 9.0
"""Squared gradient, (levels of 255 a pixel)^2, beside which an edge counts as half."""
QUARTILE = 0.25
STAYS = 0.15
"""Lower quartile over clips, 0..1, from which an edge counts as one that stays."""
CLEARLY_STAYS = 0.3
LIT = 28
"""Brightest value over all keyframes up to which a pixel is of a black bar."""
RIM_PX = 7
WINDOW = 0.1
"""Side of the square over which edges that stay are counted, in short sides: a small logo."""
MAX_WIDTH, MAX_HEIGHT = 0.45, 0.35
"""Of a logo, in sides of the picture."""
MAX_TOGETHER = 0.1
"""Share of the picture that all logos may have around them; more is a picture that stands still."""
FEWEST_PIXELS = 10
MANY_CLIPS = 12
HAS_IT = 0.5
"""Of the logo's edges in all clips together, share that a clip of them must have."""

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogosConfig:
    """Settings of the station."""

    min_density: float = 0.18
    """Edges that stay in a square of a tenth of the short side, 0..1, from which they are a logo, among
    twelve clips or more. Of clean runs of 16 clips none has over 0.12, of 8 two have 0.22 and 0.26."""
    min_density_of_few: float = 0.3
    """What `min_density` is among fewer clips."""
    max_still: float = 0.08
    """Share of a picture's edges that stay over which nothing can be told: the camera stands still."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 < value <= 1.0:
                raise ValueError(f"logos.{name} must be over 0 and at most 1, got {value}")


@dataclass(frozen=True, slots=True)
class Logo:
    """What stays in the pictures of some clips.

    Args:
        box: left, top, width and height in shares of the picture.
        edges_HW: its pixels.
    """

    box: tuple[float, float, float, float]
    edges_HW: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the picture under its box, 0..1."""
        return self.box[2] * self.box[3]

    @property
    def position(self) -> str:
        """'top_left', 'left', 'centre', ..., by the thirds in which its middle lies."""
        left, top, width, height = self.box
        across = ("left", "", "right")[min(2, int(3 * (left + width / 2)))]
        down = ("top", "", "bottom")[min(2, int(3 * (top + height / 2)))]
        return "_".join(word for word in (down, across) if word) or "centre"


def small_picture(data: bytes) -> NDArray[np.uint8]:
    """A keyframe, RGB ``[H, W, 3]``, its short side at most `SHORT_SIDE_PX`."""
    picture = open_keyframe(data, at_least_px=SHORT_SIDE_PX)
    scale = SHORT_SIDE_PX / min(picture.size)
    if scale < 1:
        size = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture)


def directions(picture_HWC: NDArray[np.uint8]) -> Map:
    """Doubled direction of the edge at every pixel, ``[H, W, 2]``, 0 (flat) to 1 long.

    By the structure tensor of all colours (Di Zenzo 1986), over squares of three pixels.
    """
    import cv2

    smooth_HWC = cv2.GaussianBlur(picture_HWC, (0, 0), 0.7)
    dx, dy = (cv2.Sobel(smooth_HWC, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = ((a * b).sum(axis=-1) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    tensor_HWC = cv2.blur(np.stack([xx - yy, 2 * xy, xx + yy], axis=-1), (3, 3))
    return np.asarray(tensor_HWC[..., :2] / (tensor_HWC[..., 2:] + FLAT), np.float32)


def common(fields_NHWC: Map) -> tuple[Map, Map]:
    """What of the edges stays, ``[H, W]`` -1..1, and their common doubled direction, unit length."""
    mean_HWC = fields_NHWC.mean(axis=0)
    lengths_HW = np.linalg.norm(mean_HWC, axis=-1, keepdims=True)
    common_HWC = mean_HWC / np.maximum(lengths_HW, 1e-6)
    along_NHW = (fields_NHWC * common_HWC).sum(axis=-1)
    return np.quantile(along_NHW, QUARTILE, axis=0).astype(np.float32), common_HWC


def find_logos(
    fields_NHWC: Map, brightest_HW: NDArray[np.uint8], config: LogosConfig
) -> list[Logo] | None:
    """Logos, the largest first; None where too much stays to tell.

    Args:
        fields_NHWC: directions of each clip, the mean of its keyframes.
        brightest_HW: highest value of any keyframe.
        config: what counts.
    """
    stays_HW, _ = common(fields_NHWC)
    is_lit = brightest_HW > LIT
    least = config.min_density if len(fields_NHWC) >= MANY_CLIPS else config.min_density_of_few
    found, of_logos_HW = [], np.zeros(stays_HW.shape, bool)
    for own_HW in _dense(np.where(is_lit, stays_HW, 0), least):
        edges_HW = own_HW & is_lit & (stays_HW > CLEARLY_STAYS)
        if edges_HW.sum() >= FEWEST_PIXELS:
            logo = Logo(_box(edges_HW), edges_HW)
            if logo.box[2] <= MAX_WIDTH and logo.box[3] <= MAX_HEIGHT:
                found.append(logo)
                of_logos_HW |= own_HW
    if of_logos_HW.mean() > MAX_TOGETHER:
        return None
    has_edges = np.linalg.norm(fields_NHWC, axis=-1).mean(axis=0) > CLEARLY_STAYS
    has_edges &= ~of_logos_HW & _inside_bars(is_lit)
    if (stays_HW > CLEARLY_STAYS)[has_edges].sum() > config.max_still * max(1, has_edges.sum()):
        return None
    return sorted(found, key=lambda logo: -logo.share)


def _inside_bars(is_lit_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is lit without its rim: the edges of black bars always stay."""
    import cv2

    square = np.ones((RIM_PX, RIM_PX), np.uint8)
    return np.asarray(cv2.erode(is_lit_HW.astype(np.uint8), square) > 0)


def _dense(stays_HW: Map, least: float) -> Iterator[NDArray[np.bool_]]:
    """Areas in which edges that stay are dense, the densest square of each over a bound."""
    import cv2

    excess_HW = np.maximum(stays_HW - STAYS, 0).astype(np.float32)
    side = max(5, round(WINDOW * min(stays_HW.shape))) | 1
    density_HW = cv2.blur(excess_HW, (side, side), borderType=cv2.BORDER_CONSTANT)
    count, numbers_HW = cv2.connectedComponents((density_HW > 0.75 * least).astype(np.uint8))
    for number in range(1, count):
        own_HW = numbers_HW == number
        if density_HW[own_HW].max() > least:
            yield own_HW


def _box(is_in_HW: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    height, width = is_in_HW.shape
    rows, columns = np.flatnonzero(is_in_HW.any(axis=1)), np.flatnonzero(is_in_HW.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    right, bottom = int(columns[-1]) + 1, int(rows[-1]) + 1
    return left / width, top / height, (right - left) / width, (bottom - top) / height


def has_logo(field_HWC: Map, common_HWC: Map, mean_HWC: Map, logo: Logo) -> bool:
    """Whether a clip has the edges of a logo of its source."""
    own = (field_HWC * common_HWC).sum(axis=-1)[logo.edges_HW].mean()
    all_together = np.linalg.norm(mean_HWC, axis=-1)[logo.edges_HW].mean()
    return bool(own >= HAS_IT * all_together)


def rows_of_clips(
    clips: Sequence[Sequence[NDArray[np.uint8]]], config: LogosConfig
) -> list[dict[str, Any]]:
    """The layer's columns of neighbouring clips of one source, each with pictures of one size."""
    if len(clips) == 1:
        parts_NHWC = np.stack([directions(picture) for picture in clips[0]])
        fields_NHWC = parts_NHWC.mean(axis=0, keepdims=True)
    else:
        means = (np.mean([directions(picture) for picture in own], axis=0) for own in clips)
        parts_NHWC = fields_NHWC = np.stack(list(means))
    brightest_HW = np.max([np.max(own, axis=(0, 3)) for own in clips], axis=0)
    logos = find_logos(parts_NHWC, brightest_HW, config)
    if logos is None:
        return [_row("unknown", []) for _ in clips]
    _, common_HWC = common(parts_NHWC)
    mean_HWC = parts_NHWC.mean(axis=0)
    rows = []
    for field_HWC in fields_NHWC:
        own = [logo for logo in logos if has_logo(field_HWC, common_HWC, mean_HWC, logo)]
        rows.append(_row("yes" if own else "no", own))
    return rows


def _row(word: str | None, logos: Sequence[Logo]) -> dict[str, Any]:
    return {
        "logo": word,
        "logo_share": sum(logo.share for logo in logos) if word in ("yes", "no") else None,
        "logo_position": logos[0].position if logos else None,
        "logo_box": list(logos[0].box) if logos else None,
    }


class Logos(Station[LogosConfig]):
    """Adds `logo`, `logo_share`, `logo_position` and `logo_box`."""

    name = "logos"
    version = 1
    config_class = LogosConfig
    needs = ("keyframes", "source_row")
    clips_together = CLIPS_TOGETHER

    def weights(self) -> Sequence[Weight]:
        """None."""
        return []

    def setup(self) -> None:
        """Nothing to load; one thread, as results must not depend on the machine."""
        import cv2

        cv2.setNumThreads(1)

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Compare the clips of each source."""
        rows: list[dict[str, Any]] = [_row(None, [])] * clips.num_rows
        for places, pictures in _alike_in_size(clips, self.clips_together):
            for place, row in zip(places, rows_of_clips(pictures, self.config), strict=True):
                rows[place] = row
        columns = [pa.array([row[c.name] for row in rows], c.type) for c in LOGOS]
        return pa.Table.from_arrays([clips["clip_id"], *columns], schema=layer_schema(self.name))


def _alike_in_size(
    clips: pa.Table, together: int
) -> Iterator[tuple[list[int], list[list[NDArray[np.uint8]]]]]:
    """Places of clips with pictures of one size, and these, of each source some together."""
    sources = clips["source_row"].to_numpy()
    begins = np.flatnonzero(np.diff(sources, prepend=-1)).tolist()
    for begin, end in zip(begins, [*begins[1:], len(sources)], strict=True):
        for first in range(begin, end, together):
            by_size: dict[tuple[int, ...], tuple[list[int], list[list[NDArray[np.uint8]]]]] = {}
            for place in range(first, min(first + together, end)):
                pictures = [small_picture(data) for data in clips["keyframes"][place].as_py() or ()]
                if len(pictures) > 1:  # one picture alone says nothing of what stays
                    places, held = by_size.setdefault(pictures[0].shape, ([], []))
                    places.append(place)
                    held.append(pictures)
            yield from by_size.values()
