"""From the bytes of a clip to the frames at given times, decoding no further than needed.

Shape letters: T frames, C = 3 channels RGB, H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
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


def read_frames(data: bytes, times_s: Sequence[float], shown: View) -> Tensor:
    """The frames of a clip nearest to some times, uint8 ``[T, C, H, W]``.

    Args:
        data: an MP4 file.
        times_s: from the first frame, rising.
        shown: where the pixels lie.

    Raises:
        BadSource: if it cannot be decoded, or ends before the last time.
    """
    import av

    out_TCHW = np.empty((len(times_s), 3, *shown.size_px), np.uint8)
    convert = converter()
    try:
        for number, frame in _nearest(data, times_s):
            out_TCHW[number] = pixels(frame, shown, number, convert).transpose(2, 0, 1)
    except av.FFmpegError as error:
        raise BadSource(UNDECODABLE, str(error)) from error
    return torch.from_numpy(out_TCHW)


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


def _nearest(data: bytes, times_s: Sequence[float]) -> Iterator[tuple[int, VideoFrame]]:
    """(number of the time, frame nearest to it), in order.

    The file is walked without decoding first, which costs a hundredth of decoding: then it is known
    which timestamps are wanted and at which keyframe to begin.
    """
    import av

    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        if not container.streams.video:
            raise BadSource(UNDECODABLE, "no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        # an edit list may begin behind the first keyframe: what lies before it is decoded, not shown
        shown = np.array(sorted(_pts(each) for each in packets if not each.is_discard), np.int64)
        if not shown.size or stream.time_base is None:
            raise BadSource(UNDECODABLE, "no frames")
        wanted = nearest_pts(shown, float(stream.time_base), times_s)
        begin = _begin(packets, wanted[0])
        due = list(wanted)
        number = 0
        for frame in _decoded(stream.codec_context, packets[begin:], set(wanted)):
            while number < len(due) and frame.pts == due[number]:
                yield number, frame
                number += 1
            if number == len(due):
                return
        raise BadSource(ENDS_EARLY, f"{number} of {len(due)} frames could be decoded")


def nearest_pts(
    shown: NDArray[np.int64], time_base_s: float, times_s: Sequence[float]
) -> list[int]:
    """Timestamp of the frame nearest to each time; of two equally near ones the earlier.

    Args:
        shown: timestamps of all frames, rising.
        time_base_s: of the timestamps.
        times_s: from the first frame.

    Raises:
        BadSource: if the file ends before the last time by more than a frame.
    """
    at_s = (shown - shown[0]) * time_base_s
    frame_s = at_s[-1] / max(1, len(shown) - 1)
    if times_s[-1] > at_s[-1] + frame_s:
        raise BadSource(ENDS_EARLY, f"last frame at {at_s[-1]:.3f} s, {times_s[-1]:.3f} s wanted")
    times = np.asarray(times_s, np.float64)
    after = np.clip(np.searchsorted(at_s, times), 1, max(1, len(shown) - 1))
    before = after - 1
    after = np.minimum(after, len(shown) - 1)
    place = np.where(times - at_s[before] <= at_s[after] - times, before, after)
    return [int(pts) for pts in shown[place]]


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
    for packet in packets:
        context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from _sound(context.decode(packet))
    context.skip_frame = "DEFAULT"
    yield from _sound(context.decode(None))


def _sound(frames: Sequence[VideoFrame]) -> Iterator[VideoFrame]:
    for frame in frames:
        if frame.is_corrupt:
            raise BadSource(UNDECODABLE, f"damaged frame at {frame.time} s")
        yield frame
