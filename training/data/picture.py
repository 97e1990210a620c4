"""From a decoded frame to the pixels of a sample: scaled, cropped, RGB.

Shape letters: T frames, C = 3 channels RGB, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from curation.media.colour import colour_of, tag
from curation.media.orientation import UPRIGHT, orientation_of, upright
from curation.media.tone import to_sdr_8bit

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

PAN_SHARE = 0.25
"""Largest way of a crop that moves over an image, in its own height or width, from the first frame to
the last. The paper says 'hand-held camera' and gives no number; at 16 frames this is 1.6 % a frame,
5 pixels of 320."""


@dataclass(frozen=True, slots=True)
class View:
    """Where the pixels of a sample lie in its frames."""

    scaled_px: tuple[int, int]
    """Height and width to which whole frames are scaled."""
    size_px: tuple[int, int]
    """H and W of the crop."""
    corners: tuple[tuple[int, int], ...]
    """Top and left of the crop in each scaled frame; one pair stands for all frames."""

    def corner(self, frame: int) -> tuple[int, int]:
        """Top and left of the crop in one frame."""
        return self.corners[frame if len(self.corners) > 1 else 0]


def covering(height: int, width: int, size_px: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture scaled until it just covers a size.

    >>> covering(720, 1280, (320, 512))
    (320, 569)
    """
    scale = max(size_px[0] / height, size_px[1] / width)
    return max(size_px[0], round(height * scale)), max(size_px[1], round(width * scale))


def view(
    height: int,
    width: int,
    size_px: tuple[int, int],
    *,
    fit: Literal["cover", "patch"],
    draw: np.random.Generator | None,
) -> View:
    """The part of a picture that becomes the sample.

    Args:
        height: of the picture as shown.
        width: of the picture as shown.
        size_px: H and W of the sample.
        fit: scale until it covers, or take a patch without scaling.
        draw: where to crop; None for the middle.
    """
    scaled = covering(height, width, size_px) if fit == "cover" else (height, width)
    room = (scaled[0] - size_px[0], scaled[1] - size_px[1])
    if draw is None:
        corner = (room[0] // 2, room[1] // 2)
    else:
        top, left = draw.integers(0, np.array(room) + 1)
        corner = (int(top), int(left))
    return View(scaled_px=scaled, size_px=size_px, corners=(corner,))


def moving_view(
    height: int,
    width: int,
    size_px: tuple[int, int],
    *,
    fit: Literal["cover", "patch"],
    num_frames: int,
    draw: np.random.Generator,
) -> View:
    """A crop that moves over a picture at a constant velocity and never leaves it.

    Direction and way are uniform up to `PAN_SHARE` of the crop along each axis, or what there is.
    A picture that is scaled is made that much larger than it need be, so that there is room.
    """
    scaled = (height, width)
    if fit == "cover":
        with_room = tuple(round(side * (1 + PAN_SHARE)) for side in size_px)
        scaled = covering(height, width, (with_room[0], with_room[1]))
    ends = []
    for side, crop in zip(scaled, size_px, strict=True):
        way = draw.uniform(-1, 1) * min(PAN_SHARE * crop, side - crop)
        start = draw.uniform(max(0.0, -way), side - crop - max(0.0, way))
        ends.append(np.rint(np.linspace(start, start + way, num_frames)).astype(int))
    corners = tuple((int(top), int(left)) for top, left in zip(*ends, strict=True))
    return View(scaled_px=scaled, size_px=size_px, corners=corners)


def converter() -> VideoReformatter:
    """What `pixels` converts with; one for each clip, since it keeps tables of its sizes."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def pixels(
    frame: VideoFrame, shown: View, number: int, convert: VideoReformatter
) -> NDArray[np.uint8]:
    """One frame of a sample, upright, uint8 RGB ``[H, W, C]``.

    Args:
        frame: as decoded.
        shown: where to look.
        number: of the frame in the sample.
        convert: of this clip.
    """
    from av.video.reformatter import Interpolation as How

    colour, orientation = colour_of(frame), orientation_of(frame)
    tag(frame, colour)
    scaled = shown.scaled_px[::-1] if orientation.swaps_sides else shown.scaled_px
    # Accurate rounding without full chroma takes two levels from every grey; where nothing is scaled
    # neither is needed, and both together take a hundred times as long.
    how = How.BICUBIC | How.BITEXACT
    if scaled != (frame.height, frame.width):
        how |= How.ACCURATE_RND | How.FULL_CHR_H_INT
    rgb = convert.reformat(
        frame,
        width=scaled[1],
        height=scaled[0],
        format="rgb48le" if colour.is_mapped else "rgb24",
        interpolation=how,
        threads=1,
    )
    plane = rgb.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    if colour.is_mapped:  # clips whose packets were copied, of an HDR source
        wide_HWC = lines[:, : 6 * scaled[1]].copy().view("<u2").reshape(scaled[0], scaled[1], 3)
        picture_HWC = to_sdr_8bit(wide_HWC, colour)
    else:
        picture_HWC = lines[:, : 3 * scaled[1]].reshape(scaled[0], scaled[1], 3)
    if orientation != UPRIGHT:
        picture_HWC = upright(picture_HWC, orientation)
    top, left = shown.corner(number)
    height, width = shown.size_px
    return np.asarray(picture_HWC[top : top + height, left : left + width])
