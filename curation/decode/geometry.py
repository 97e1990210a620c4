"""Where a stream goes on with pictures of another shape: broadcasts do at every change of programme."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from curation.decode.measuring import Shown
from curation.media.colour import Colour, colour_of

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame


class Stretches:
    """Sees the first frame that differs in size, pixel aspect or coding of colours.

    Args:
        first: the first frame of the film.
        shown: how it is shown.
        context: of the decoder, which knows the pixel aspect.
    """

    def __init__(self, first: VideoFrame, shown: Shown, context: VideoCodecContext) -> None:
        self._shown = shown
        self._context = context
        self._size = first.width, first.height
        self._colour = _look(colour_of(first))
        self._aspect = context.sample_aspect_ratio

    def go_on(self, context: VideoCodecContext) -> None:
        """Another decoder gives the frames from here on."""
        self._context = context

    def changed(self, frame: VideoFrame) -> Shown | None:
        """How frames are shown from this one on, if otherwise than the one before it."""
        # The decoder is ahead of the frames that it gives out, and lends those without tags what comes
        # next: a new aspect and new colours begin with a keyframe.
        is_key, size = frame.key_frame, (frame.width, frame.height)
        if size == self._size and not is_key:
            return None  # nearly every frame
        colour = _look(colour_of(frame))
        aspect = self._context.sample_aspect_ratio
        is_same = size == self._size and colour == self._colour
        if is_same and (aspect == self._aspect or not is_key):
            return None
        if aspect != self._aspect:  # said by the stream, so not only by the container
            self._shown = replace(self._shown, sample_aspect=Fraction(aspect or 1))
        self._size, self._colour, self._aspect = size, colour, aspect
        self._shown = replace(self._shown, width=size[0], height=size[1])
        return self._shown


def _look(colour: Colour) -> tuple[str, bool, str]:
    """What has to be alike for pictures to be converted alike."""
    return colour.matrix, colour.full_range, colour.text if colour.is_mapped else ""
