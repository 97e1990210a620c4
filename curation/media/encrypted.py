"""Films in MP4 whose pictures are encrypted (ISO/IEC 23001-7, common encryption).

libav opens them as if they were not, and its decoders find damage, or nothing, in every packet.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from curation.errors import BadSource
from curation.media.mp4_index import moov_box

_SCHEME = re.compile(rb"encv.*?schm.{4}(cenc|cens|cbc1|cbcs|piff)", re.DOTALL)
"""A sample entry of encrypted video, and the scheme that its box schm names."""


def check_open(file: BinaryIO) -> None:
    """Refuse a film that says it is encrypted.

    Args:
        file: an MP4; left where it was.

    Raises:
        BadSource: 'encrypted'.
    """
    place = file.tell()
    try:
        found = _SCHEME.search(moov_box(file))
    finally:
        file.seek(place)
    if found is not None:
        raise BadSource("encrypted", f"scheme {found[1].decode()}")
