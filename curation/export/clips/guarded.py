"""Cuts that are made inside a `Guard`: only tables cross, so a cut is a table of one row."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO

import pyarrow as pa

from curation.errors import BadSource
from curation.export.clips.remux import copy_packets
from curation.export.clips.settings import ADMITTED, Clip, ExportConfig, Media
from curation.export.clips.still import to_jpeg
from curation.media.clock import ClockShift, Entry, Lead, SteadyClock, packets_of
from curation.media.guard import Guard
from curation.media.probe import open_video, picture_stream
from curation.media.recordings import WHOLE, Recording, recordings

_MEDIA = pa.schema(
    [
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("extension", pa.string()),
        ("data", pa.binary()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)

_TABLES = {
    "streams": pa.schema([(name, pa.int64()) for name in ("begin", "end", "index", "goes_on_at")]),
    "shifts": pa.schema([(name, pa.int64()) for name in ("begin", "packet", "ticks")]),
    "entries": pa.schema([(name, pa.int64()) for name in ("begin", "packet", "pts")]),
    "lead": pa.schema(
        [(name, pa.int64()) for name in ("begin", "num_frames", "end", "num", "den")]
    ),
}
"""Of a stream as it was read, row by row; each says where its recording begins."""


def cut_copy(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.remux.copy_packets` in the child."""
    return _media(guard.call(_copied, clip, config, file=file, timeout_s=config.deadline_s(clip)))


def cut_image(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.still.to_jpeg` in the child."""
    return _media(guard.call(_as_jpeg, clip, config, file=file, timeout_s=config.deadline_s(clip)))


@dataclass(frozen=True, slots=True)
class ReadStream:
    """What cutting needs to know of a source's picture stream, or of one of its recordings.

    Args:
        index: among all streams.
        shifts: jumps of its clock.
        entries: where decoding can begin; read only where there are jumps.
        lead: frames without timestamps at its start.
        recording: the bytes in which it lies.
        goes_on_at: steady time of its start, behind another recording.
        later: the recordings behind it.
    """

    index: int
    shifts: tuple[ClockShift, ...] = ()
    entries: tuple[Entry, ...] = ()
    lead: Lead | None = None
    recording: Recording = WHOLE
    goes_on_at: int | None = None
    later: tuple[ReadStream, ...] = ()

    def placed(self, clip: Clip) -> Clip:
        """The clip with its stream, the jumps before its end, and where decoding begins."""
        for each in reversed(self.later):
            if each.goes_on_at is not None and each.goes_on_at <= clip.start_pts:
                return each.placed(clip)
        first = max((each.packet for each in self.entries if each.pts <= clip.start_pts), default=0)
        return replace(
            clip,
            stream_index=self.index,
            shifts=self.shifts,
            first_packet=first,
            lead=self.lead,
            recording=self.recording,
            goes_on_at=self.goes_on_at,
        )


def read_stream(
    file: BinaryIO, config: ExportConfig, guard: Guard, *, has_jumps: bool
) -> ReadStream:
    """The stream that was measured; where its clock jumps, all of it is read for that.

    Args:
        file: the source.
        config: for its deadline.
        guard: where libav reads the source.
        has_jumps: whether the decoding pass saw the clock jump.
    """
    tables = guard.call(_read_stream, has_jumps, file=file, timeout_s=config.timeout_s)
    rows = {name: table.to_pylist() for name, table in tables.items()}
    first, *later = (_stream_of(rows, row) for row in rows["streams"])
    return replace(first, later=tuple(later))


def _stream_of(rows: dict[str, list[dict[str, Any]]], stream: dict[str, Any]) -> ReadStream:
    """One recording out of the tables of all."""
    begin, end = stream.pop("begin"), stream.pop("end")

    def of_it(name: str) -> list[dict[str, Any]]:
        found = [row for row in rows[name] if row["begin"] == begin]
        return [{key: value for key, value in row.items() if key != "begin"} for row in found]

    return ReadStream(
        **stream,
        recording=Recording(begin, end),
        shifts=tuple(ClockShift(**row) for row in of_it("shifts")),
        entries=tuple(Entry(**row) for row in of_it("entries")),
        lead=next((_lead(**row) for row in of_it("lead")), None),
    )


def _lead(num_frames: int, end: int, num: int, den: int) -> Lead:
    return Lead(num_frames, end, Fraction(num, den))


def _read_stream(file: BinaryIO, has_jumps: bool) -> dict[str, pa.Table]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    if not has_jumps:
        _read_recording(file, WHOLE, None, found, at_once=True)
    goes_on_at: int | None = None
    for recording in recordings(file) if has_jumps else ():
        try:
            goes_on_at = _read_recording(file, recording, goes_on_at, found)
        except BadSource:
            if goes_on_at is None:
                raise
            continue  # as the decoding pass does
    return {name: pa.Table.from_pylist(found[name], schema=_TABLES[name]) for name in _TABLES}


def _read_recording(
    file: BinaryIO,
    recording: Recording,
    goes_on_at: int | None,
    found: dict[str, list[dict[str, Any]]],
    *,
    at_once: bool = False,
) -> int:
    """Add a recording to the rows; only its first packet is read where that is enough."""
    here = {"begin": recording.begin}
    with open_video(file, ADMITTED, recording) as container:
        stream = picture_stream(container)
        clock = SteadyClock(container.format.name, stream, goes_on_at=goes_on_at)
        packets = clock.read(packets_of(container, stream))
        for number, packet in enumerate(itertools.islice(packets, 1) if at_once else packets):
            if packet.is_keyframe and packet.pts is not None:
                found["entries"].append(asdict(Entry(number, packet.pts)) | here)
        found["shifts"] += [asdict(each) | here for each in clock.shifts]
        if (lead := clock.lead) is not None and goes_on_at is None:
            num, den = lead.step.as_integer_ratio()
            told = {"num_frames": lead.num_frames, "end": lead.end, "num": num, "den": den}
            found["lead"].append(told | here)
        ends = {"end": recording.end, "index": stream.index, "goes_on_at": goes_on_at}
        found["streams"].append(here | ends)
    return clock.end


def _copied(file: BinaryIO, clip: Clip, config: ExportConfig) -> dict[str, pa.Table]:
    try:
        return _table(copy_packets(file, clip, config))
    except BadSource as error:
        return _refusal(error)


def _as_jpeg(file: BinaryIO, clip: Clip, config: ExportConfig) -> dict[str, pa.Table]:
    try:
        return _table(to_jpeg(file, clip, config))
    except BadSource as error:
        return _refusal(error)


def _table(media: Media) -> dict[str, pa.Table]:
    row = {name: getattr(media, name, None) for name in _MEDIA.names}
    return {"media": pa.Table.from_pylist([row], schema=_MEDIA)}


def _refusal(error: BadSource) -> dict[str, pa.Table]:
    """As a row, for a guard lets only the reasons of sources through."""
    row = {"reason": error.reason, "detail": error.detail}
    return {"media": pa.Table.from_pylist([row], schema=_MEDIA)}


def _media(answer: dict[str, pa.Table]) -> Media:
    row: dict[str, Any] = answer["media"].to_pylist()[0]
    reason, detail = row.pop("reason"), row.pop("detail")
    if reason is not None:
        raise BadSource(reason, detail)
    return Media(**row)
