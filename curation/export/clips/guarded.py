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

_SHIFTS = pa.schema([("packet", pa.int64()), ("ticks", pa.int64())])
_LEAD = pa.schema(
    [("num_frames", pa.int64()), ("end", pa.int64()), ("num", pa.int64()), ("den", pa.int64())]
)
_ENTRIES = pa.schema([("packet", pa.int64()), ("pts", pa.int64())])


def cut_copy(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.remux.copy_packets` in the child."""
    return _media(guard.call(_copied, clip, config, file=file, timeout_s=config.deadline_s(clip)))


def cut_image(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.still.to_jpeg` in the child."""
    return _media(guard.call(_as_jpeg, clip, config, file=file, timeout_s=config.deadline_s(clip)))


@dataclass(frozen=True, slots=True)
class ReadStream:
    """What cutting needs to know of a source's picture stream.

    Args:
        index: among all streams.
        shifts: jumps of its clock.
        entries: where decoding can begin; read only where there are jumps.
        lead: frames without timestamps at its start.
    """

    index: int
    shifts: tuple[ClockShift, ...] = ()
    entries: tuple[Entry, ...] = ()
    lead: Lead | None = None

    def placed(self, clip: Clip) -> Clip:
        """The clip with its stream, the jumps before its end, and where decoding begins."""
        first = max((each.packet for each in self.entries if each.pts <= clip.start_pts), default=0)
        return replace(
            clip,
            stream_index=self.index,
            shifts=self.shifts,
            first_packet=first,
            lead=self.lead,
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
    return ReadStream(
        int(tables["stream"]["index"][0].as_py()),
        tuple(ClockShift(**row) for row in tables["shifts"].to_pylist()),
        tuple(Entry(**row) for row in tables["entries"].to_pylist()),
        next((_lead(**row) for row in tables["lead"].to_pylist()), None),
    )


def _lead(num_frames: int, end: int, num: int, den: int) -> Lead:
    return Lead(num_frames, end, Fraction(num, den))


def _read_stream(file: BinaryIO, has_jumps: bool) -> dict[str, pa.Table]:
    entries: list[Entry] = []
    with open_video(file, ADMITTED) as container:
        stream = picture_stream(container)
        clock = SteadyClock(container.format.name, stream)
        packets = clock.read(packets_of(container, stream))
        for number, packet in enumerate(packets if has_jumps else itertools.islice(packets, 1)):
            if packet.is_keyframe and packet.pts is not None:
                entries.append(Entry(number, packet.pts))
        shifts, lead = clock.shifts, clock.lead
        found = None if lead is None else (lead.num_frames, lead.end, *lead.step.as_integer_ratio())
        leads = [] if found is None else [dict(zip(_LEAD.names, found, strict=True))]
        return {
            "lead": pa.Table.from_pylist(leads, schema=_LEAD),
            "stream": pa.table({"index": [stream.index]}),
            "shifts": pa.Table.from_pylist([asdict(each) for each in shifts], schema=_SHIFTS),
            "entries": pa.Table.from_pylist([asdict(each) for each in entries], schema=_ENTRIES),
        }


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
