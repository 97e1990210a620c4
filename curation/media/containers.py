"""Container formats by their bytes: which one a file is, and whether the file is all there.

Reads a few bytes at known places and decodes nothing, so it may run on anything. Layouts are those
of ISO/IEC 14496-12 (MP4), the QuickTime file format, RFC 9559 (Matroska), RIFF, ITU-T T.81 (JPEG),
the PNG specification, and libav's own probes where several formats look alike.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from curation.errors import BadSource

SNIFF_BYTES = 64 * 1024
"""As far as libav looks for the first packet of a transport stream (MAX_RESYNC_SIZE in mpegts.c)."""

IMAGE_DEMUXERS = ("jpeg_pipe", "png_pipe", "webp_pipe")
"""Demuxers of still images. GIF is left out: 256 colours, and it is mostly screen captures; so is
animated WebP, its successor. Of an animated PNG the default image is taken."""

_MOV_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}
_MEDIA_BOXES = _MOV_BOXES | {b"moof", b"mfra", b"sidx", b"ssix", b"meta", b"udta", b"uuid", b"emsg"}
"""Boxes at the top level of a film; others that do not fit into the file are not boxes."""
_STILL_BRANDS = {b"heic", b"heix", b"mif1", b"avif", b"avis", b"msf1", b"hevc"}
_SIGNATURES = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"FLV\x01": "flv",
    b"YUV4MPEG2 ": "yuv4mpegpipe",
    bytes.fromhex("060e2b34020501010d01020101"): "mxf",  # SMPTE 377-1: header partition pack
    bytes.fromhex("1f0700"): "dv",  # IEC 61834-2: the first block of a frame
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"): "asf",
    b"OggS": "ogg",
    b"\x00\x00\x01\xba": "mpeg",
    b"\xff\xd8\xff": "jpeg_pipe",
    b"\x89PNG\r\n\x1a\n": "png_pipe",
}
_RIFF_FORMS = {b"AVI ": "avi", b"WEBP": "webp_pipe"}
DEMUXERS = frozenset((*_SIGNATURES.values(), *_RIFF_FORMS.values(), "mov", "mpegts"))
"""All that a file can be."""

_PLAYLIST = re.compile(
    rb"#EXT|ffconcat\b|\[playlist\]|\[reference\]|v=0\s|RTSPtext|;FFMETADATA"
    rb"|(file|https?|ftp|rtsp|rtmp|concat|subfile|mms)[ :]"
    rb"|(<\?xml[^>]*>\s*)?(?:(?><!--.*?-->)\s*)*+"
    rb"<(MPD|SmoothStreamingMedia|smil|asx|playlist|\w*:?CompositionPlaylist|AssetMap|qtl|embed)\b",
    re.IGNORECASE | re.DOTALL,
)
"""HLS, concat, PLS, QuickTime text, SDP, RTSP, DASH, Smooth Streaming, SMIL, ASX, XSPF, IMF."""

PACKETS = re.compile(rb"G(?=(?:.{187}G){4}|(?:.{191}G){4})", re.DOTALL)
"""Five packets of a transport stream in a row, without a timecode or with one."""
_LONGEST_PACKET = 192


def sniff(first_bytes: bytes) -> str:
    """The demuxer for a file, by its first bytes.

    Args:
        first_bytes: the first `SNIFF_BYTES` of the file, or all of it where shorter.

    Returns:
        A libav demuxer, of `DEMUXERS`.

    Raises:
        BadSource: 'empty', 'playlist', 'no_video' for audio files, else 'unknown_format'. What
            begins like none of them and goes on as a transport stream is one, with junk before it.
    """
    if not first_bytes:
        raise BadSource("empty", "0 bytes")
    demuxer = _by_signature(first_bytes)
    if demuxer is not None:
        return demuxer
    packets = PACKETS.search(first_bytes)
    if packets and packets.start() < _LONGEST_PACKET:
        return "mpegts"  # captures start when somebody presses a button: inside a packet
    text = first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip(b"\x00 \t\r\n")
    if first_bytes[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16: ASCII once its zeros are gone
        text = first_bytes[2:].replace(b"\x00", b"").lstrip()
    if _PLAYLIST.match(text):
        raise BadSource("playlist", f"begins with {_shown(text)}")
    if _is_audio(first_bytes):
        raise BadSource("no_video", "an audio file")
    if packets:
        return "mpegts"
    raise BadSource("unknown_format", f"begins with {_shown(first_bytes)}")


def _shown(data: bytes) -> str:
    """The beginning of a file as a person can read it, ASCII only."""
    return ascii(data[:24].decode("latin-1"))


def _by_signature(data: bytes) -> str | None:
    if data[4:8] in _MOV_BOXES:
        if data[4:8] == b"ftyp" and data[8:12] in _STILL_BRANDS:
            raise BadSource("unknown_format", f"a {data[8:12].decode()} image")
        return "mov"
    if data[:4] == b"RIFF":
        # The second bit of the flags of the extended format; libav decodes no animation.
        if data[8:16] == b"WEBPVP8X" and len(data) > 20 and data[20] & 2:
            raise BadSource("unknown_format", "an animated WebP")
        return _RIFF_FORMS.get(data[8:12])
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def _is_audio(data: bytes) -> bool:
    wave = data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"
    mpeg_frame = data[0] == 0xFF and len(data) > 1 and data[1] & 0xE6 in (0xE2, 0xE4, 0xE0)
    return wave or mpeg_frame or data.startswith((b"ID3", b"fLaC", b"ADIF", b"#!AMR", b"FORM"))


def is_whole(file: BinaryIO, demuxer: str) -> bool:
    """Whether a file holds all that its container promises, where containers promise.

    A film that is cut off (a recorder without power, a full disk) can be read up to there; a picture
    cannot, nor a film whose index lay behind the cut. Transport, program and FLV streams promise
    nothing.

    Args:
        file: read at a few places, left anywhere.
        demuxer: from `sniff`.

    Raises:
        BadSource: 'truncated' where nothing can be read, or 'undecodable' where the structure makes
            no sense.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    if demuxer == "mov":
        return _has_whole_boxes(file, size_bytes)
    if demuxer == "matroska":
        return _has_whole_segment(file, size_bytes)
    if demuxer == "avi":
        return _riff_bytes(file) <= size_bytes
    if demuxer == "webp_pipe":
        _check_end(_riff_bytes(file), size_bytes, "RIFF")
    elif demuxer == "png_pipe":
        _check_png(file, size_bytes)
    elif demuxer == "jpeg_pipe":
        _check_jpeg(file)
    return True


def _riff_bytes(file: BinaryIO) -> int:
    return int.from_bytes(file.read(8)[4:], "little") + 8


def _check_end(promised: int, size_bytes: int, what: str) -> None:
    if promised > size_bytes:
        raise BadSource(
            "truncated", f"{what} says {promised} bytes, the file holds {size_bytes} bytes"
        )


def _has_whole_boxes(file: BinaryIO, size_bytes: int) -> bool:
    """Walk the top level of an MP4: every box ends inside the file, one must be moov.

    Behind a whole film there may be bytes that are no boxes: phones append records of their own.
    """
    position = 0
    has_index = has_media = False
    for _ in range(1_000_000):  # a day of one-second fragments has 172,800
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break  # up to seven stray bytes at the end harm no one
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size_bytes - position if any(kind) else 0
        fits = 8 <= length <= size_bytes - position
        if not fits and has_index and has_media and kind not in _MEDIA_BOXES:
            break  # what follows is no box, or zeros: files grown in blocks
        if length < 8:
            raise BadSource("undecodable", f"a box of {length} bytes at byte {position}")
        if not fits and has_index:
            return False
        _check_end(position + length, size_bytes, f"box {_shown(kind)}")
        has_index = has_index or kind == b"moov"
        has_media = has_media or kind == b"mdat"
        position += length
    if not has_index:
        raise BadSource("truncated", "no index (moov): cut, or never finished")
    return True


def _has_whole_segment(file: BinaryIO, size_bytes: int) -> bool:
    """Look at the length of the Matroska segment; live recordings leave it unknown."""
    head = file.read(SNIFF_BYTES)
    start = head.find(b"\x18\x53\x80\x67")
    if start < 0 or start + 12 > len(head):
        return True  # no segment so early: libav will say what it is
    first = head[start + 4]
    width = 9 - first.bit_length()  # of the length field: leading zeros of its first byte, plus one
    bits = 7 * width
    length = int.from_bytes(head[start + 4 : start + 4 + width], "big") & ((1 << bits) - 1)
    is_known = width <= 8 and length != (1 << bits) - 1
    return not is_known or start + 4 + width + length <= size_bytes


def _check_png(file: BinaryIO, size_bytes: int) -> None:
    """Walk the chunks of a PNG up to IEND."""
    position = 8
    while position < size_bytes:
        file.seek(position)
        header = file.read(8)
        position += 12 + int.from_bytes(header[:4], "big")
        _check_end(position, size_bytes, f"chunk {_shown(header[4:])}")
        if header[4:] == b"IEND":
            return
    raise BadSource("truncated", "no IEND")


def _check_jpeg(file: BinaryIO) -> None:
    """Look for the end marker after the picture data, past any thumbnail in the headers.

    In entropy-coded data FF is followed by 00 or a restart marker: FF D9 is the end (T.81 B.1.1).
    """
    position = 2
    while True:
        file.seek(position)
        header = file.read(4)
        if len(header) < 4:
            raise BadSource("truncated", "no picture data")
        if header[0] != 0xFF:
            raise BadSource("undecodable", f"no JPEG marker at byte {position}")
        if header[1] == 0xDA:
            break
        position += 1 if header[1] == 0xFF else 2 + int.from_bytes(header[2:], "big")
    last = b""
    while block := file.read(1 << 20):
        if b"\xff\xd9" in last + block:
            return
        last = block[-1:]
    raise BadSource("truncated", "no end marker")
