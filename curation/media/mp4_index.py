"""The index of an MP4 file: where the coding of each track is described."""

from __future__ import annotations

import io
from typing import BinaryIO

MAX_BYTES = 64 * 1024**2
"""Of an index that are read; descriptions of coding lie in its first part."""


def moov_box(file: BinaryIO) -> bytes:
    """The moov box, which `is_whole` has found; empty where it is not among the first boxes.

    Args:
        file: an MP4; left behind what was read.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    position = 0
    for _ in range(1000):
        file.seek(position)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if kind == b"moov":
            file.seek(position)
            return file.read(min(length or size_bytes, MAX_BYTES))
        position += length
        if length < 8 or position >= size_bytes:
            break
    return b""
