"""From decoded frames to the small pictures that are measured and kept, in the right colours.

libswscale goes straight from the decoder's planes to the small size; a full-size RGB picture is
made only where a frame can be seen through and has to be laid on white.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curation.decode.keyframes import keyframe_size
from curation.decode.picture import analysis_size
from curation.media.colour import Colour, colour_of, is_see_through, layout_of, tag
from curation.media.image import on_white
from curation.media.orientation import Orientation, upright
from curation.media.tone import to_sdr_8bit

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter


class Conversion:
    """Makes the pictures of frames that are alike in size, pixel aspect and coding.

    Args:
        first: one of these frames.
        sample_aspect: width of a pixel through its height.
        orientation: how the frames are shown.
        short_side_px: of a keyframe.
    """

    def __init__(
        self,
        first: VideoFrame,
        *,
        sample_aspect: Fraction,
        orientation: Orientation,
        short_side_px: int,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        geometry = first.width, first.height, sample_aspect
        self.colour: Colour = colour_of(first)
        self.size = analysis_size(*geometry)
        self._keyframe_size = keyframe_size(*geometry, short_side_px=short_side_px)
        self._orientation = orientation
        self._has_alpha = is_see_through(layout_of(first))
        if self._has_alpha:
            self._mapped: Colour | None = None
            layout = "rgb24"
        else:
            self._mapped = self.colour if self.colour.is_mapped else None
            is_yuv = self.colour.matrix != "gbr" and len(first.format.components) == 3
            names = ("yuv420p", "yuv420p10le") if is_yuv else ("rgb24", "rgb48le")
            layout = names[self._mapped is not None]
        self._layout = layout
        # One each: a reformatter keeps its tables only while sizes and formats stay the same.
        self._to_analysis, self._to_candidate = VideoReformatter(), VideoReformatter()
        self._to_packed, self._to_analysis_packed = VideoReformatter(), VideoReformatter()

    def analysis_picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame in BGR at analysis size, square pixels, not turned: uint8 ``[H, W, 3]``."""
        # libswscale makes BGR and a smaller picture at once at twice the cost of one after the other.
        # One of its threads: with more it may split the picture and wait for itself.
        small = self._to_analysis.reformat(
            self._sound(frame),
            *self.size,
            format=self._layout,
            interpolation="FAST_BILINEAR",
            threads=1,
        )
        return self._packed(small, self._to_analysis_packed)

    def candidate(self, frame: VideoFrame) -> VideoFrame:
        """The frame at keyframe size; one of luma and chroma stays so: half the memory of RGB."""
        return self._at_keyframe_size(self._sound(frame))

    def candidate_of_one_field(self, frame: VideoFrame) -> VideoFrame:
        """Likewise without every second line, which belongs to another moment."""
        return self._at_keyframe_size(_field(self._sound(frame)))

    def _at_keyframe_size(self, frame: VideoFrame) -> VideoFrame:
        return self._to_candidate.reformat(
            frame,
            *self._keyframe_size,
            format=self._layout,
            interpolation="AREA",
            threads=1,
        )

    def keyframe(self, candidate: VideoFrame) -> NDArray[np.uint8]:
        """The picture of a candidate, upright: uint8 BGR ``[H, W, 3]``."""
        return upright(self._packed(candidate, self._to_packed), self._orientation)

    def _packed(self, small: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
        """A small frame as BGR, 8 bits, in the colours of a screen: uint8 ``[H, W, 3]``."""
        if self._mapped is None:
            return _packed(reformatter.reformat(small, format="bgr24", threads=1))
        packed = reformatter.reformat(small, format="rgb48le", threads=1)
        return np.ascontiguousarray(to_sdr_8bit(_packed16(packed), self._mapped)[..., ::-1])

    def _sound(self, frame: VideoFrame) -> VideoFrame:
        """The frame, opaque and with all its tags."""
        if self._has_alpha:
            from av import VideoFrame as Frame

            tag(frame, self.colour)
            seen_HWC: Any = frame.to_ndarray(format="rgba")
            return Frame.from_ndarray(on_white(seen_HWC), "rgb24")
        tag(frame, self.colour)
        return frame


def _field(frame: VideoFrame) -> Any:
    """The upper field: a frame of half the height, by libavfilter's `field`."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 25),
    )
    field, sink = graph.add("field", "type=top"), graph.add("buffersink")
    source.link_to(field)
    field.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull()


def _packed(frame: Any) -> NDArray[np.uint8]:
    """The bytes of a packed 24-bit frame as ``[H, W, 3]``: a view where rows have no padding."""
    plane = frame.planes[0]
    rows_HN = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    rows_HN = np.ascontiguousarray(rows_HN[:, : 3 * frame.width])
    return rows_HN.reshape(frame.height, frame.width, 3)


def _packed16(frame: Any) -> NDArray[np.uint16]:
    """The numbers of a packed 48-bit frame, likewise."""
    plane = frame.planes[0]
    rows_HN = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    rows_HN = np.ascontiguousarray(rows_HN[:, : 6 * frame.width])
    return rows_HN.view("<u2").reshape(frame.height, frame.width, 3)
