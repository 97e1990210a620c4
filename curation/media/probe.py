"""The gate: what a source is by its bytes, and the only place where libav opens one.

libav follows playlists, concat scripts and references to files and addresses wherever it is let.
So it gets neither a name nor a choice here: it reads from an already opened regular file, the
demuxer is named from the first bytes (`sniff`), demuxers, decoders and protocols are on lists, and
any request to open something else is refused (`open_video`). What libav reads is untrusted all the
same: call `open_video` inside a `curation.media.guard.Guard`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from curation.errors import BadSource, machine_fault
from curation.media.clock import BROADCAST
from curation.media.colour import colour_of, layout_of
from curation.media.containers import IMAGE_DEMUXERS, SNIFF_BYTES, is_whole, sniff
from curation.media.dolby_vision import CODECS, check_base_layer
from curation.media.encrypted import check_open
from curation.media.orientation import Orientation, orientation_of
from curation.media.recordings import WHOLE, Recording
from curation.media.stereo import check_one_view

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "DECODERS",
    "IMAGE_DEMUXERS",
    "Limits",
    "Probe",
    "ffmpeg_input_args",
    "is_whole",
    "open_regular",
    "open_video",
    "picture_stream",
    "probe",
    "sniff",
]

DECODERS = (
    *("h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4"),
    *("msmpeg4", "msmpeg4v2", "msmpeg4v1", "h263", "mpeg2video", "mpeg1video", "mjpeg"),
    *("prores", "dnxhd", "dvvideo", "flv", "wmv1", "wmv2", "wmv3", "vc1", "theora", "ffv1"),
    *("huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "webp"),
)
"""Decoders that libav may start, by its names: cameras, the web, editing, older archives.

No audio or subtitle decoder: streams of sound are counted, never decoded. Left out on purpose: game
and screen formats, JPEG 2000, and all else that is rare in video archives and seldom fuzzed. Bare
H.264 and HEVC, whose frames have no times, are of no format that `sniff` knows.
"""

_STILL_DECODERS = ("mjpeg", "png", "webp")
"""Decoders of covers; a film can be MJPEG too, and is taken where it is alone."""
LEAST_SHARE = 0.1
"""Of the frames of the stream that has most, under which a stream holds pictures of chapters."""
MAX_STREAMS = 64
"""Films with many languages have some thirty streams; libav's own limit is 1000."""
STRICT_CODECS = frozenset({"hevc"})
"""Whose decoder tells of damage only by refusing a packet, where it is asked to: else it paints
something and says nothing."""
_PADDING = 256
"""Pixels that a decoder may add to a side of its buffers (MPEG-4 adds 128 and rounds up)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one source may take; beyond them it is rejected with a reason."""

    max_bytes: int = 32 * 1024**3
    """Bytes of one file; two hours of 4K at 35 Mbit/s are 31 GB (YouTube's upload advice)."""
    max_side: int = 8192
    """Pixels of the longer side of a stored frame; 8K UHD has 7680."""
    max_pixels: int = 8192 * 4608
    """Pixels of a stored frame; 8K UHD has 33.2 million. A frame of this size takes 57 MB as 4:2:0,
    and a decoder holds up to twenty."""
    max_duration_s: float = 4 * 3600.0
    """Seconds of one video; longer than any feature film, shorter than most surveillance."""
    max_frames: int = 1_000_000
    """Frames of one video: four hours at 60 a second are 864,000."""
    timeout_s: float = 3600.0
    """Wall seconds for one source; four hours of 720p at 30 a second take about half of it on one
    core at the 240 frames/s that an analysing pass reaches."""
    memory_bytes: int = 2 * 1024**3
    """Private memory of the process that decodes, in bytes; a 1080p film takes under 0.5 GB."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"limits.{name} must be over 0, got {value}")
        if self.memory_bytes < 512 * 1024**2:
            raise ValueError(
                "limits.memory_bytes must be at least 536870912 (libav, numpy and OpenCV take a "
                f"third of it before the first frame), got {self.memory_bytes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the header of a source says; nothing was decoded for it but a first frame."""

    container: str
    """Demuxer, such as 'mov' or 'matroska'; 'jpeg_pipe' and the like for still images."""
    codec: str
    """Codec of the picture stream, such as 'h264'."""
    pixel_format: str
    """As libav names it, such as 'yuv420p'."""
    stream_index: int
    """Index of the picture stream among all streams of the file."""
    stored_width: int
    """Width of a decoded frame in pixels, before turn and pixel aspect."""
    stored_height: int
    """Height of a decoded frame."""
    sample_aspect: Fraction
    """Width of a pixel through its height; 1 where the file does not say."""
    orientation: Orientation
    """How the container wants it shown: mirrored or not, turned or not."""
    width: int
    """Shown width in pixels: after pixel aspect and turn."""
    height: int
    """Shown height in pixels."""
    fps: float | None
    """Mean frame rate; null for images."""
    duration_s: float | None
    """As the header says, to be believed for limits only; null where it does not say."""
    has_audio: bool
    """Whether there is an audio stream."""
    bit_depth: int
    """Bits of a sample, such as 8 or 10."""
    transfer: str
    """Transfer characteristics in libav's words, such as 'smpte2084'; 'unspecified' likewise."""
    primaries: str
    """Primaries, likewise; those of untagged HDR are BT.2020."""

    @property
    def is_image(self) -> bool:
        """Whether the source is a still image by its bytes."""
        return self.container in IMAGE_DEMUXERS


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is a regular one, without following a link and without waiting for anything.

    Raises:
        BadSource: 'not_found', 'not_regular' or 'unreadable'.
        MachineFault: no descriptor or memory is left for any file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):  # before opening: to open some devices is to act on them
            raise BadSource("not_regular", _kind(mode))
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadSource("not_found", error.strerror or "") from error
    except OSError as error:
        if fault := machine_fault(error):
            raise fault from error
        raise BadSource("unreadable", error.strerror or "") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise BadSource("not_regular", f"{_kind(mode)}, put there meanwhile")
    return os.fdopen(descriptor, "rb")


def _kind(mode: int) -> str:
    """What a file that is not regular is, for a person."""
    kinds = {
        stat.S_IFLNK: "a symbolic link; --follow-links follows those in folders that stay under the "
        "given folders and those of --link-roots",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")


class _Unnamed:
    """A readable, seekable file without a name: libav would build other names from it.

    An exception here would reach libav's caller late, or in the next file; so a place that cannot
    be is answered as the operating system answers libav, with a negative number.
    """

    def __init__(self, file: BinaryIO, recording: Recording) -> None:
        self._file, self._begin, self._end = file, recording.begin, recording.end

    def tell(self) -> int:
        return self._file.tell() - self._begin

    def read(self, size_bytes: int) -> bytes:
        if self._end is not None:
            size_bytes = max(0, min(size_bytes, self._end - self._file.tell()))
        try:
            return self._file.read(size_bytes)
        except OSError as error:
            raise BadSource("unreadable", error.strerror or "") from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self._begin
        elif whence == os.SEEK_END and self._end is not None:
            offset, whence = offset + self._end, os.SEEK_SET
        try:
            return self._file.seek(offset, whence) - self._begin
        except (OSError, OverflowError, ValueError):
            return -errno.EINVAL


def _refuse_to_open(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise BadSource("playlist", f"it asks for another file or address: {url[:200]!a}")


@contextlib.contextmanager
def open_video(
    file: BinaryIO, limits: Limits, recording: Recording = WHOLE
) -> Iterator[InputContainer]:
    """Open a source with libav, all doors but the one of this file closed.

    Args:
        file: a regular file, as of `open_regular`; read from its start.
        limits: bytes, sides, pixels and duration are checked against the header.
        recording: the part of the file that is read, where it holds several.

    Yields:
        The open container. `picture_stream` gives the stream to decode.

    Raises:
        BadSource: with any word that a header can earn.
    """
    import av

    demuxer = _admit(file, limits, recording)
    try:
        container = av.open(
            _Unnamed(file, recording),
            "r",
            format=demuxer,
            container_options=_container_options(demuxer),
            metadata_errors="replace",
            io_open=_refuse_to_open,
        )
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise BadSource("undecodable", f"{demuxer}: {_words(error)}") from error
    with container:
        _check_limits(container, limits)
        if demuxer == "mov":
            check_open(file)
        if picture_stream(container).codec.canonical_name in CODECS:
            check_base_layer(file, demuxer)
        yield container


def _admit(file: BinaryIO, limits: Limits, recording: Recording) -> str:
    """Check size, kind and structure by the bytes alone; returns the demuxer to name."""
    size_bytes = file.seek(0, io.SEEK_END)
    if size_bytes > limits.max_bytes:
        raise BadSource("too_large", f"{size_bytes} bytes, the limit is {limits.max_bytes}")
    file.seek(recording.begin)
    demuxer = sniff(file.read(SNIFF_BYTES))
    is_whole(file, demuxer)  # raises where nothing can be read
    file.seek(recording.begin)
    return demuxer


def _container_options(demuxer: str) -> dict[str, str]:
    options = {
        "format_whitelist": demuxer,
        "protocol_whitelist": "none",  # our reader is no protocol: none is needed
        "codec_whitelist": ",".join(DECODERS),
        "max_streams": str(MAX_STREAMS),
    }
    if demuxer == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    return options


def ffmpeg_input_args(demuxer: str, *, is_part: bool = False) -> dict[str, str]:
    """Options before ``-i`` that keep an ffmpeg program to one local file of one format.

    Give the file as ``file:`` and its absolute path, so that no part of its name is taken for an
    option or a protocol: ``ffmpeg.input(f"file:{path.absolute()}", **ffmpeg_input_args("mov"))``.

    Args:
        demuxer: from `sniff`, or `Probe.container`.
        is_part: whether the address names some bytes of the file: ``subfile,,start,0,end,9,,:file:``.
    """
    return {
        "f": demuxer,
        "protocol_whitelist": "file,subfile" if is_part else "file",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join((*DECODERS, "aac", "mp3", "mp3float", "opus", "vorbis")),
        "max_streams": str(MAX_STREAMS),
    }


def _words(error: Exception) -> str:
    """The last line of an error's text, short, for the row."""
    return (str(error).splitlines() or [type(error).__name__])[-1][:200]


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream that is the film: the one with most pixels, the first of equals, no still.

    Stills are cover art by its flag, and where another stream is none: a stream of one frame, or
    one in a codec of pictures whose number of frames the container does not say. Pictures of
    chapters are few beside the frames of the film.

    Raises:
        BadSource: 'no_video', or 'undecodable' where its decoder is not on the list.
    """
    from av.stream import Disposition

    aside = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    films = [stream for stream in container.streams.video if not stream.disposition & aside]
    if not films:
        kinds = sorted({stream.type for stream in container.streams})
        raise BadSource("no_video", f"streams: {', '.join(kinds) or 'none'}")
    films = [stream for stream in films if not _is_still(stream)] or films
    most = max(stream.frames for stream in films)
    films = [stream for stream in films if not 0 < stream.frames < LEAST_SHARE * most]
    stream = max(films, key=lambda s: (_side(s, "width") * _side(s, "height"), -s.index))
    name = stream.codec_context.name if stream.codec_context is not None else "an unknown codec"
    if name not in DECODERS:
        raise BadSource("undecodable", f"{name} is not on the list of decoders")
    return stream


def _is_still(stream: VideoStream) -> bool:
    context = stream.codec_context
    name = "" if context is None else context.name
    return stream.frames == 1 or (stream.frames == 0 and name in _STILL_DECODERS)


def _side(stream: VideoStream, name: str) -> int:
    context = stream.codec_context
    return 0 if context is None else int(getattr(context, name))


def _check_limits(container: InputContainer, limits: Limits) -> None:
    """Check the header's sizes and duration, and bound what the decoder takes later on."""
    from av.codec.context import Flags

    stream = picture_stream(container)
    width, height = _side(stream, "width"), _side(stream, "height")
    check_size(width, height, limits)
    if width < 1 or height < 1:
        raise BadSource(
            "undecodable", "a size of its pictures is not stated, or past libav's limits"
        )
    duration_s = _duration_s(container, stream)
    if duration_s is not None and duration_s > limits.max_duration_s:
        raise BadSource("too_long", f"{duration_s:.0f} s, the limit is {limits.max_duration_s} s")
    if stream.frames > limits.max_frames:
        raise BadSource("too_long", f"{stream.frames} frames, the limit is {limits.max_frames}")
    # A second bound, for streams that grow in the middle; decoders count their padding too.
    padded = limits.max_pixels + 2 * _PADDING * limits.max_side + _PADDING**2
    options = {"max_pixels": str(padded)}
    if stream.codec_context.name in STRICT_CODECS:
        options["err_detect"] = "explode"
    stream.codec_context.options = options
    # Else libav shows columns on the left that the stream hides, as many as its memory likes better.
    stream.codec_context.flags |= Flags.unaligned


def check_size(width: int, height: int, limits: Limits) -> None:
    """Check a stored size; to be asked again of decoded frames, for streams may change size.

    Raises:
        BadSource: 'too_many_pixels'.
    """
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise BadSource(
            "too_many_pixels",
            f"{width}x{height}, the limits are {limits.max_side} a side and "
            f"{limits.max_pixels} in all",
        )


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """What the header says, from the first to the last frame; null where it cannot know."""
    if container.format.name in BROADCAST:
        return None  # libav takes the first clock from the last, whatever lies between
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None:
        return None
    # Matroska's counts from 0, and a recorder's clock may begin at the time of day.
    late = 0 if container.start_time is None else max(0, container.start_time)
    return max(0, container.duration - late) / 1_000_000


def probe(file: BinaryIO, limits: Limits) -> Probe:
    """What the header of one source says.

    Decodes frames until the first comes out, since the turn is known only then.

    Raises:
        BadSource: with any word that a header or a first frame can earn.
    """
    import av

    with open_video(file, limits) as container:
        stream = picture_stream(container)
        try:
            frame = next(container.decode(stream), None)
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise BadSource("undecodable", _words(error)) from error
        if frame is None:
            raise BadSource("undecodable", "no frame comes out")
        return facts(container, stream, frame)


def facts(container: InputContainer, stream: VideoStream, first: VideoFrame) -> Probe:
    """Header facts of an open container, and those that only a frame tells.

    Args:
        container: as of `open_video`.
        stream: as of `picture_stream`.
        first: the first frame decoded.

    Raises:
        BadSource: 'stereo_3d'.
    """
    check_one_view(first)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    orientation, colour = orientation_of(first), colour_of(first)
    shown = (max(1, round(first.width * aspect)), first.height)
    width, height = shown[::-1] if orientation.swaps_sides else shown
    container_name = container.format.name
    is_image = container_name in IMAGE_DEMUXERS
    rate = stream.average_rate or stream.guessed_rate
    return Probe(
        container=container_name,
        codec=stream.codec.canonical_name,
        pixel_format=layout_of(first),
        stream_index=stream.index,
        stored_width=first.width,
        stored_height=first.height,
        sample_aspect=Fraction(aspect),
        orientation=orientation,
        width=width,
        height=height,
        fps=None if is_image or not rate else float(rate),
        duration_s=None if is_image else _duration_s(container, stream),
        has_audio=len(container.streams.audio) > 0,
        bit_depth=first.format.components[0].bits,
        transfer=colour.transfer,
        primaries=colour.primaries,
    )
