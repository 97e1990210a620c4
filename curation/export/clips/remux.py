"""Copy a clip's packets into a file of its own, without decoding.

A decoder can only begin at a keyframe, and a packet can only be left out together with all that
refer to it, so the clip is shrunk inward until both ends are clean: no frame of a neighbouring
scene is in the file, not even a hidden one.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from curation.errors import BadSource
from curation.export.clips.exact import measured
from curation.export.clips.settings import ADMITTED, Clip, ExportConfig, Media
from curation.media.clock import BROADCAST, UNTIMED, SteadyClock, packets_of
from curation.media.probe import open_video, picture_stream

MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"})
"""Codecs that an MP4 file may hold and that common readers find there."""
MAX_PACKETS_BYTES = 256 * 1024**2
"""Packets of one clip; they and three copies of them must fit into the child's memory."""
SEEK_EARLIER_S = 2
"""Streams without an index are searched by their clock, and found behind the keyframe asked for."""
INDEX_BYTES = 4096
"""The boxes of an MP4 index that do not grow with the packets: under 1 KB, and room to spare."""
INDEX_BYTES_PER_PACKET = 44
"""Size 4, time of decoding 8, of showing 8, keyframe 4, chunk 12 and its place 8."""


def copy_packets(file: BinaryIO, clip: Clip, config: ExportConfig) -> Media:
    """Copy the packets from the first keyframe at or after the start to the end.

    Leading pictures of an open GOP, which refer to frames before the keyframe, are left out. At the
    end everything from the first packet whose frame lies at or behind ``end_pts`` is left out, and
    what would then have a gap before it. Size, rotation and pixel aspect are the source's.

    Raises:
        BadSource: 'no_keyframe_inside', 'too_short_after_shrink', 'codec_not_in_mp4',
            'no_timestamps' or 'encoder_failed'.
    """
    import av

    try:
        with open_video(file, ADMITTED, clip.recording) as reader:
            stream = picture_stream(reader)
            codec = stream.codec.canonical_name  # AV1's decoder is called libdav1d
            if codec not in MP4_CODECS:
                raise BadSource("codec_not_in_mp4", codec)
            packets, end_pts = _clean_packets(_packets_of(reader, stream, clip), clip)
            _check_times(stream, packets, clip.container)
            data = _write(stream, packets, end_pts)
    except av.FFmpegError as error:
        raise BadSource("encoder_failed", str(error)) from error
    media = measured(data)
    assert media is not None, "at least the keyframe was written"
    media = replace(media, width=clip.width, height=clip.height)
    if media.num_frames < config.min_copied_frames or media.duration_s < config.min_copied_s:
        raise BadSource(
            "too_short_after_shrink", f"{media.num_frames} frames, {media.duration_s:.3f} s"
        )
    return media


def _packets_of(reader: Any, stream: Any, clip: Clip) -> list[Any]:
    """Packets in decoding order from the first keyframe inside the clip to behind its end."""
    found: list[Any] = []
    size_bytes = 0
    end = _End(clip.end_pts)
    for packet in _read(reader, stream, clip):
        if packet.pts is None:
            raise BadSource("no_timestamps", "a packet has no presentation time")
        if end.is_passed(packet):
            break
        starts = packet.is_keyframe and clip.start_pts <= packet.pts < clip.end_pts
        if found or (starts and not packet.is_corrupt):
            found.append(packet)
            size_bytes += packet.size
        if size_bytes > MAX_PACKETS_BYTES:
            raise BadSource("too_large", f"over {MAX_PACKETS_BYTES} bytes of packets")
    if not found:
        raise BadSource("no_keyframe_inside", "no keyframe from the clip's start to its end")
    return found


def _read(reader: Any, stream: Any, clip: Clip) -> Iterator[Any]:
    """Packets from before the clip on, at the times of the decoding pass."""
    if clip.shifts:  # no seek finds a time on a clock that jumps
        clock = SteadyClock(clip.container, stream, goes_on_at=clip.goes_on_at)
        return itertools.islice(clock.read(packets_of(reader, stream)), clip.first_packet, None)
    early = SEEK_EARLIER_S if clip.container in BROADCAST else 0
    reader.seek(clip.start_pts - round(early / clip.time_base), stream=stream, backward=True)
    return packets_of(reader, stream)


def _check_times(stream: Any, packets: list[Any], container: str) -> None:
    """Check that no two frames are shown at one time, and that made-up times are true.

    Where a container has no times of showing, libav's guesses are believed if the frames come out
    of the decoder in their order.

    Raises:
        BadSource: 'no_timestamps'.
    """
    times = sorted(packet.pts for packet in packets)
    if len(set(times)) < len(times):
        raise BadSource("no_timestamps", "two packets have the same presentation time")
    if container not in UNTIMED:
        return
    frames = [frame for each in (*packets, None) for frame in stream.codec_context.decode(each)]
    shown = [frame.pts for frame in frames]
    if shown != times:
        raise BadSource(
            "no_timestamps", f"files of kind {container} say when to decode, not to show"
        )


class _End:
    """Sees from the packets in decoding order when none can follow that is shown before a time."""

    def __init__(self, end_pts: int) -> None:
        self._end_pts = end_pts
        self._keyframe_pts: int | None = None

    def is_passed(self, packet: Any) -> bool:
        """Whether all later packets are shown at or after the end."""
        # Nothing is shown before it is decoded; Matroska leaves the time of decoding open at first.
        # There a keyframe behind the end is followed by its leading pictures, then by later ones.
        if packet.dts is not None and packet.dts >= self._end_pts:
            return True
        if self._keyframe_pts is not None:
            return packet.pts > self._keyframe_pts
        if packet.is_keyframe and packet.pts >= self._end_pts:
            self._keyframe_pts = packet.pts
        return False


def _clean_packets(packets: list[Any], clip: Clip) -> tuple[list[Any], int]:
    """The packets that can be decoded by themselves and show an unbroken span; where it ends."""
    first_pts = packets[0].pts
    trailing = [p for p in packets if p.pts >= first_pts]
    end_pts = clip.end_pts
    while True:
        kept = list(_until(trailing, end_pts))
        dropped = [p.pts for p in trailing[len(kept) :] if p.pts < end_pts]
        if not dropped:
            return kept, end_pts
        end_pts = min(dropped)  # if frames behind the gap were kept, they go too


def _until(packets: list[Any], end_pts: int) -> Iterator[Any]:
    """Packets in decoding order before the first one that is shown at or after ``end_pts``."""
    for packet in packets:
        if packet.pts >= end_pts:
            return
        yield packet


def _write(template: Any, packets: list[Any], end_pts: int) -> bytes:
    """An MP4 file of the packets whose first frame is shown at 0 and its last to the end."""
    import av

    # Room for the index before the pictures, so that it need not be moved there afterwards.
    index_bytes = INDEX_BYTES + INDEX_BYTES_PER_PACKET * len(packets)
    index_bytes += len(template.codec_context.extradata or b"")
    options = {"moov_size": str(index_bytes), "fflags": "+bitexact"}
    buffer = io.BytesIO()
    first_pts = packets[0].pts
    times = _decode_times([p.pts - first_pts for p in packets])
    # Of the durations an MP4 file keeps the last only; the others are the distances of these times.
    packets[-1].duration = end_pts - first_pts - (times[-1] - times[0])
    with av.open(buffer, "w", format="mp4", options=options) as writer:
        stream = writer.add_stream_from_template(template, opaque=True)
        for packet, decoded_at in zip(packets, times, strict=True):
            packet.stream = stream
            packet.pts -= first_pts
            packet.dts = decoded_at
            writer.mux(packet)
    return buffer.getvalue()


def _decode_times(pts: list[int]) -> list[int]:
    """Rising times, none after its packet's time of showing.

    Made anew because not every container has them: the times of showing in rising order, all
    earlier by the longest wait that the order of decoding imposes.
    """
    rising = sorted(pts)
    delay = max(in_order - shown for in_order, shown in zip(rising, pts, strict=True))
    return [in_order - delay for in_order in rising]
