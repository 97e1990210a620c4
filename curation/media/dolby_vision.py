"""Films of Dolby Vision whose pictures are in colours that only its own metadata explain.

Most have a base layer that is HDR10, HLG or SDR as well, and is read as that. Those of profile 5 have none:
their three planes are no luma and chroma of any standard, and come out in green and purple. The record that
tells is the one of "Dolby Vision Streams Within the ISO Base Media File Format", which Matroska holds too.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from curation.errors import BadSource
from curation.media.mp4_index import moov_box

CODECS = frozenset({"hevc", "av1", "h264"})
"""That Dolby Vision comes in."""
MAX_HEADER_BYTES = 1024**2
"""Of a Matroska file, in which its tracks are described: before the first picture."""
_BOX = re.compile(rb"\x00\x00\x00\x20dv[cvw]C(.{24})", re.DOTALL)
_MAPPING = re.compile(rb"\x41\xe7\x84dv[cvw]C\x41\xed\x98(.{24})", re.DOTALL)
"""A box of 32 bytes; and a BlockAddIDType with its BlockAddIDExtraData (RFC 9559), of 24."""


def check_base_layer(file: BinaryIO, demuxer: str) -> None:
    """Refuse a film whose container says that its base layer is no picture by itself.

    Args:
        file: left where it was.
        demuxer: of which 'mov' and 'matroska' have a record.

    Raises:
        BadSource: 'dolby_vision'.
    """
    place = file.tell()
    try:
        record = _record(file, demuxer)
    finally:
        file.seek(place)
    if record is None or record[4] >> 4:  # what the base layer is compatible with: 0 for nothing
        return
    profile = record[2] >> 1
    raise BadSource(
        "dolby_vision", f"profile {profile}, whose base layer is compatible with nothing"
    )


def _record(file: BinaryIO, demuxer: str) -> bytes | None:
    """The configuration record of Dolby Vision, if there is one."""
    if demuxer == "mov":
        found = _BOX.search(moov_box(file))
    elif demuxer == "matroska":
        file.seek(0)
        found = _MAPPING.search(file.read(MAX_HEADER_BYTES))
    else:
        return None
    return found[1] if found else None
