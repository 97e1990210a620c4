"""Recordings laid end to end in one file, each with a header of its own.

Two FLV files make one by copying their bytes, and so do transport streams: a download of pieces with
advertisements between them, say. People do it with MP4 files too, of which players show the first. libav
reads the first header and follows its streams; what comes under another header it takes for damage, or for
a stream that nobody asked for. Where the tables of a transport stream go on with the same stream of
pictures, the clock tells (`curation.media.clock`): it is one recording.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from curation.media.containers import PACKETS, SNIFF_BYTES, sniff

MAX_RECORDINGS = 10_000
_FLV_HEADER = re.compile(rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09\x00\x00\x00\x00", re.DOTALL)
"""Version, what is in it, length of the header, and no tag before the first."""
_PICTURES = frozenset({0x01, 0x02, 0x10, 0x1B, 0x24, 0x33, 0x80, 0xD1, 0xD2, 0xEA})
"""Stream types of pictures (ISO/IEC 13818-1, table 2-34, and those that others have claimed)."""
_LOST_ROWS = 5
"""Packets in a row without their first byte, after which packets are searched anew."""
_FEW_ROWS, _MANY_ROWS = 1 << 10, 1 << 20
"""Packets that are looked at together: few where some were lost, so that they cost little; at most 200 MB
of the file, 10 MB of memory."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Bytes of a file.

    Args:
        begin: of the first.
        end: behind the last; None for the end of the file.
    """

    begin: int = 0
    end: int | None = None


WHOLE = Recording()
"""All of a file."""


def recordings(file: BinaryIO) -> tuple[Recording, ...]:
    """The recordings that a file holds, in order: one, if none were laid end to end.

    Args:
        file: a regular file; left at its start.

    Raises:
        BadSource: as of `sniff`.
    """
    file.seek(0)
    demuxer = sniff(file.read(SNIFF_BYTES))
    file.seek(0)
    find = {"flv": _flv_joints, "mpegts": _table_joints, "mov": _box_joints}.get(demuxer)
    if find is None:
        return (WHOLE,)
    joints = list(find(np.memmap(file, np.uint8, "r")))
    begins = [0, *joints[:MAX_RECORDINGS]]
    return tuple(map(Recording, begins, [*begins[1:], None]))


def _flv_joints(data: Any) -> Iterator[int]:
    return (found.start() for found in _FLV_HEADER.finditer(data) if found.start())


def _box_joints(data: Any) -> Iterator[int]:
    """Where an MP4 begins behind a whole one.

    Of one in fragments the header may be repeated before each: only where their times begin anew another
    film begins.
    """
    kinds: set[bytes] = set()
    header_at, fragment = 0, b""
    for place, kind, length in _boxes(data):
        if kind == b"ftyp":
            header_at = place
            if {b"moov", b"mdat"} <= kinds and b"moof" not in kinds:
                yield place
                kinds = set()
        elif kind == b"moof":
            before, fragment = fragment, bytes(data[place : place + length])
            if header_at and before and _begins_anew(before, fragment):
                yield header_at
            header_at = 0
        kinds.add(kind)


def _boxes(data: Any) -> Iterator[tuple[int, bytes, int]]:
    """Boxes at the top level: place, kind, length."""
    place = 0
    while place + 16 <= len(data):
        header = bytes(data[place : place + 16])
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        yield place, kind, length
        if length < 8:
            return  # up to the end of the file, or no box
        place += length


def _begins_anew(before: bytes, fragment: bytes) -> bool:
    """Whether of two fragments that begin with the same track the second is decoded earlier."""
    (track_before, time_before), (track, time) = _decoded_at(before), _decoded_at(fragment)
    return track == track_before and time < time_before


def _decoded_at(fragment: bytes) -> tuple[int, int]:
    """Track of the first run of a fragment, and when it is decoded, in ticks; 0 where it does not say."""
    head, place = fragment.find(b"tfhd"), fragment.find(b"tfdt")
    size_bytes = 8 if fragment[place + 4 : place + 5] == b"\x01" else 4
    time = 0 if place < 0 else int.from_bytes(fragment[place + 8 : place + 8 + size_bytes], "big")
    return 0 if head < 0 else int.from_bytes(fragment[head + 8 : head + 12], "big"), time


def _table_joints(data: Any) -> Iterator[int]:
    """Where tables begin that have none of the streams of pictures from before."""
    pictures: dict[int, frozenset[int]] = {}  # PID of a programme's table -> of its pictures
    current: frozenset[int] = frozenset()
    joint = 0
    for begin, pid, section in _sections(data):
        if pid == 0:
            joint = begin
            listed = _programmes(section)
            pictures = {pid: pictures.get(pid, frozenset()) for pid in listed}
        elif pid in pictures:
            pictures[pid] = _pictures_of(section)
        now = frozenset().union(*pictures.values())
        if now and current and now.isdisjoint(current):
            yield joint
            current = now
        current |= now  # several programmes are told of one after the other


def _sections(data: Any) -> Iterator[tuple[int, int, bytes]]:
    """Tables that fit into their packet: where the packet begins, its PID, what is behind its pointer."""
    named: set[int] = set()
    for begin, rows_NP in _blocks(data):
        pids_N = (rows_NP[:, 1].astype(np.uint16) & 0x1F) << 8 | rows_NP[:, 2]
        heads_N = (rows_NP[:, 1] & 0x40 > 0) & (rows_NP[:, 3] & 0x10 > 0)
        for place in np.flatnonzero(heads_N & (pids_N == 0)).tolist():
            named.update(_programmes(_section(bytes(rows_NP[place]))))
        for place in np.flatnonzero(heads_N & np.isin(pids_N, [0, *named])).tolist():
            section = _section(bytes(rows_NP[place]))
            yield begin + place * rows_NP.strides[0], int(pids_N[place]), section


def _blocks(data: Any) -> Iterator[tuple[int, Any]]:
    """Packets in a row, uint8 ``[N, 188]``, and where the first begins."""
    place, most_rows = 0, _FEW_ROWS
    while found := PACKETS.search(data, place):
        begin = found.start()
        stride = 188 if data[begin + 188] == data[begin] else 192
        num_rows = min((len(data) - begin - 188) // stride + 1, most_rows)
        shape, strides = (num_rows, 188), (stride, 1)
        rows_NP = np.lib.stride_tricks.as_strided(data[begin:], shape, strides, writeable=False)
        lost_N = np.flatnonzero(rows_NP[:, 0] != data[begin])
        # The first of so many that follow each other.
        fifth_N = lost_N[_LOST_ROWS - 1 :]
        follow_N = np.flatnonzero(fifth_N - lost_N[: len(fifth_N)] < _LOST_ROWS)
        num_sound = int(lost_N[follow_N[0]]) if len(follow_N) else num_rows
        yield begin, rows_NP[:num_sound]
        place = begin + num_sound * stride
        most_rows = min(2 * most_rows, _MANY_ROWS) if num_sound == num_rows else _FEW_ROWS


def _section(packet: bytes) -> bytes:
    """What a packet holds behind its header, adaptation field and pointer, up to the section's end."""
    begin = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    payload = packet[begin + 1 + packet[begin] :] if begin < len(packet) else b""
    return payload[: 3 + (int.from_bytes(payload[1:3], "big") & 0xFFF)]


@functools.lru_cache(maxsize=1024)
def _programmes(section: bytes) -> frozenset[int]:
    """PIDs of the tables of programmes, from the table that lists them (H.222.0, table 2-30)."""
    if section[:1] != b"\x00" or not _is_sound(section):
        return frozenset()
    entries = [section[place : place + 4] for place in range(8, len(section) - 4, 4)]
    return frozenset(int.from_bytes(e[2:], "big") & 0x1FFF for e in entries if any(e[:2]))


@functools.lru_cache(maxsize=1024)
def _pictures_of(section: bytes) -> frozenset[int]:
    """PIDs of pictures, from the table of a programme (H.222.0, table 2-33)."""
    if section[:1] != b"\x02" or not _is_sound(section):
        return frozenset()
    place, found = 12 + (int.from_bytes(section[10:12], "big") & 0xFFF), set()
    while place + 5 <= len(section) - 4:
        if section[place] in _PICTURES:
            found.add(int.from_bytes(section[place + 1 : place + 3], "big") & 0x1FFF)
        place += 5 + (int.from_bytes(section[place + 3 : place + 5], "big") & 0xFFF)
    return frozenset(found)


def _is_sound(section: bytes) -> bool:
    """Whether a section is whole, now in force, and its checksum (CRC-32/MPEG-2) is right."""
    if len(section) < 12 or not section[5] & 1:
        return False
    checksum = 0xFFFFFFFF
    for byte in section:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return checksum == 0
