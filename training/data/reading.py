"""From the bytes of a clip to the frames at given times, decoding no further than needed.

Shape letters: T frames, C = 3 channels RGB, H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curation.errors import BadSource
from training.data.picture import View, converter, pixels

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext, VideoFrame, VideoStream

UNDECODABLE, ENDS_EARLY = "undecodable", "truncated"
STILL_S = 1.0
"""How far behind a keyframe a single frame may lie. Uniform over the clip, four images cost twice as
much as 16 frames of video: a keyframe may be ten seconds back, and all frames between are decoded."""
SKIPPING_CODECS = ("h264", "hevc")
"""Whose decoders take `skip_frame` packet by packet; dav1d reads it once, when it is opened."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a film are shown, known before one is decoded."""

    shown: NDArray[np.int64]
    """Timestamps of all frames, rising."""
    keyframes: NDArray[np.int64]
    """Those of the frames that need no other, rising."""
    end: int
    """Timestamp at which the last frame is no longer shown."""
    time_base_s: float
    """Unit of the timestamps, in seconds."""

    def nearest(self, times_s: Sequence[float]) -> list[int]:
        """Timestamp of the frame nearest to each time; of two equally near ones the earlier.

        Args:
            times_s: from the first frame, rising.

        Raises:
            BadSource: if the film ends before the last time by more than a frame. A picture that
                stands at the end is shown for as long as the file says.
        """
        at_s = (self.shown - self.shown[0]) * self.time_base_s
        frame_s = at_s[-1] / max(1, len(at_s) - 1)
        end_s = float(self.end - self.shown[0]) * self.time_base_s
        if times_s[-1] > max(at_s[-1] + frame_s, end_s):
            raise BadSource(
                ENDS_EARLY, f"last frame at {at_s[-1]:.3f} s, {times_s[-1]:.3f} s wanted"
            )
        times = np.asarray(times_s, np.float64)
        after = np.searchsorted(at_s, times)
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(at_s) - 1)
        place = np.where(times - at_s[before] <= at_s[after] - times, before, after)
        return [int(pts) for pts in self.shown[place]]

    def still(self, draw: np.random.Generator) -> int:
        """Timestamp of a random frame at most `STILL_S` behind a random keyframe."""
        of_keyframe, of_frame = draw.random(2)
        begin = self.keyframes[int(of_keyframe * len(self.keyframes))]
        end = begin + STILL_S / self.time_base_s
        near = self.shown[(self.shown >= begin) & (self.shown <= end)]
        return int(near[int(of_frame * len(near))])


def read_frames(data: bytes, times_s: Sequence[float], shown: View) -> Tensor:
    """The frames of a clip nearest to some times, uint8 ``[T, C, H, W]``.

    Args:
        data: an MP4 file.
        times_s: from the first frame, rising.
        shown: where the pixels lie.

    Raises:
        BadSource: if it cannot be decoded, or ends before the last time.
    """
    return _read(data, lambda timeline: timeline.nearest(times_s), shown)


def read_still(data: bytes, draw: np.random.Generator, shown: View) -> Tensor:
    """A random frame of a clip, uint8 ``[1, C, H, W]``: one near a keyframe, see `STILL_S`.

    Args:
        data: an MP4 file.
        draw: chooses the frame.
        shown: where the pixels lie.

    Raises:
        BadSource: if it cannot be decoded.
    """
    return _read(data, lambda timeline: [timeline.still(draw)], shown)


def read_image(data: bytes, shown: View) -> Tensor:
    """An image, uint8 ``[T, C, H, W]`` with a frame for each corner of the view.

    Args:
        data: a JPEG file.
        shown: where the pixels lie.

    Raises:
        BadSource: if it cannot be decoded.
    """
    import av

    out_TCHW = np.empty((len(shown.corners), 3, *shown.size_px), np.uint8)
    convert = converter()
    try:
        with av.open(io.BytesIO(data), "r", format="jpeg_pipe") as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise BadSource(UNDECODABLE, "no picture")
            for number in range(len(shown.corners)):
                out_TCHW[number] = pixels(frame, shown, number, convert).transpose(2, 0, 1)
    except av.FFmpegError as error:
        raise BadSource(UNDECODABLE, str(error)) from error
    return torch.from_numpy(out_TCHW)


def _read(data: bytes, choose: Callable[[Timeline], list[int]], shown: View) -> Tensor:
    """Frames of chosen timestamps, uint8 ``[T, C, H, W]``."""
    import av

    frames: list[NDArray[np.uint8]] = []
    convert = converter()
    try:
        for number, frame in _chosen(data, choose):
            frames.append(pixels(frame, shown, number, convert))
    except av.FFmpegError as error:
        raise BadSource(UNDECODABLE, str(error)) from error
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def _chosen(
    data: bytes, choose: Callable[[Timeline], list[int]]
) -> Iterator[tuple[int, VideoFrame]]:
    """(number of the timestamp, its frame), in order.

    The file is walked without decoding first, which costs a hundredth of decoding: then it is known
    which frames there are and at which keyframe to begin.
    """
    import av
    from av.codec.context import Flags

    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        if not container.streams.video:
            raise BadSource(UNDECODABLE, "no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.unaligned  # hidden columns stay hidden
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        due = choose(_timeline(packets, stream))
        begin = _begin(packets, due[0])
        number = 0
        for frame in _decoded(stream.codec_context, packets[begin:], set(due)):
            while number < len(due) and frame.pts == due[number]:
                yield number, frame
                number += 1
            if number == len(due):
                return
        raise BadSource(ENDS_EARLY, f"{number} of {len(due)} frames could be decoded")


def _timeline(packets: Sequence[Packet[VideoStream]], stream: VideoStream) -> Timeline:
    # an edit list may begin behind the first keyframe: what lies before it is decoded, not shown
    there = [packet for packet in packets if not packet.is_discard]
    if not there or stream.time_base is None:
        raise BadSource(UNDECODABLE, "no frames")
    shown = np.array(sorted(map(_pts, there)), np.int64)
    last = max(there, key=_pts)
    keyframes = sorted(_pts(packet) for packet in there if packet.is_keyframe)
    return Timeline(
        shown=shown,
        keyframes=np.array(keyframes or [shown[0]], np.int64),
        end=_pts(last) + (last.duration or 0),
        time_base_s=float(stream.time_base),
    )


def _pts(packet: Packet[VideoStream]) -> int:
    assert packet.pts is not None, "those without were left out"
    return packet.pts


def _begin(packets: Sequence[Packet[VideoStream]], first_pts: int) -> int:
    """Place of the last keyframe that is shown no later than the first wanted frame."""
    keys = [n for n, p in enumerate(packets) if p.is_keyframe and _pts(p) <= first_pts]
    return keys[-1] if keys else 0


def _decoded(
    context: VideoCodecContext, packets: Sequence[Packet[VideoStream]], wanted: set[int]
) -> Iterator[VideoFrame]:
    """Frames of some packets, in order of time; without those that nobody needs.

    A frame that is not wanted is skipped by the decoder if no other frame is made from it
    (nal_ref_idc 0 in H.264): its packet is looked at, not decoded.
    """
    skips = context.name in SKIPPING_CODECS
    for packet in packets:
        context.skip_frame = "NONREF" if skips and packet.pts not in wanted else "DEFAULT"
        yield from _sound(context.decode(packet))
    context.skip_frame = "DEFAULT"
    yield from _sound(context.decode(None))


def _sound(frames: Sequence[VideoFrame]) -> Iterator[VideoFrame]:
    for frame in frames:
        if frame.is_corrupt:
            raise BadSource(UNDECODABLE, f"damaged frame at {frame.time} s")
        yield frame
