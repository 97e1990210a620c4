"""Copy a clip's packets into a file of its own, without decoding.

A decoder can only begin at a keyframe, and a packet can only be left out together with all that
refer to it, so the clip is shrunk inward until both ends are clean: no frame of a neighbouring
scene is in the file, not even a hidden one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from curation.clips.exact import measured
from curation.clips.settings import Clip, ExportConfig, Media
from curation.errors import BadSource

MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"})
"""Codecs that an MP4 file may hold and that common readers find there."""
MAX_PACKETS_BYTES = 2 * 1024**3
"""Packets of one clip that are held in memory at once."""


def cut_copy(source: Path, clip: Clip, config: ExportConfig, scratch: Path) -> Media:
    """Copy the packets from the first keyframe at or after the start to the end.

    Leading pictures of an open GOP, which refer to frames before the keyframe, are left out. At the
    end everything from the first packet whose frame lies at or behind ``end_pts`` is left out, and
    what would then have a gap before it. Size, rotation and pixel aspect are the source's.

    Raises:
        BadSource: 'no_keyframe_inside', 'too_short_after_shrink', 'codec_not_in_mp4',
            'no_timestamps' or 'encoder_failed'.
    """
    import av

    target = scratch / "clip.mp4"
    try:
        with av.open(
            f"file:{source}", format=clip.container, options={"format_whitelist": clip.container}
        ) as reader:
            stream = reader.streams.video[0]
            if stream.codec_context.name not in MP4_CODECS:
                raise BadSource("codec_not_in_mp4", stream.codec_context.name)
            packets, end_pts = _clean_packets(_packets_of(reader, stream, clip), clip)
            _write(target, stream, packets, end_pts)
    except av.FFmpegError as error:
        raise BadSource("encoder_failed", str(error)) from error
    media = replace(measured(target), width=clip.width, height=clip.height)
    if media.num_frames < config.min_copied_frames or media.duration_s < config.min_copied_s:
        raise BadSource(
            "too_short_after_shrink", f"{media.num_frames} frames, {media.duration_s:.3f} s"
        )
    return media


def _packets_of(reader: Any, stream: Any, clip: Clip) -> list[Any]:
    """Packets in decoding order from the first keyframe inside the clip to behind its end."""
    reader.seek(clip.start_pts, stream=stream, backward=True)
    found: list[Any] = []
    size_bytes = 0
    end = _End(clip.end_pts)
    for packet in reader.demux(stream):
        if packet.size == 0:  # the flush at the end of the file
            break
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


def _write(target: Path, template: Any, packets: list[Any], end_pts: int) -> None:
    """Write the packets to an MP4 file whose first frame is shown at 0 and its last to the end."""
    import av

    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    first_pts = packets[0].pts
    times = _decode_times([p.pts - first_pts for p in packets])
    # Of the durations an MP4 file keeps the last only; the others are the distances of these times.
    packets[-1].duration = end_pts - first_pts - (times[-1] - times[0])
    with av.open(str(target), "w", format="mp4", options=options) as writer:
        stream = writer.add_stream_from_template(template)
        for packet, decoded_at in zip(packets, times, strict=True):
            packet.stream = stream
            packet.pts -= first_pts
            packet.dts = decoded_at
            writer.mux(packet)


def _decode_times(pts: list[int]) -> list[int]:
    """Rising times, none after its packet's time of showing.

    Made anew because not every container has them: the times of showing in rising order, all
    earlier by the longest wait that the order of decoding imposes.
    """
    rising = sorted(pts)
    delay = max(in_order - shown for in_order, shown in zip(rising, pts, strict=True))
    return [in_order - delay for in_order in rising]
