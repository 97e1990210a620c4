"""Cuts that are made inside a `Guard`: only tables cross, so a cut is a table of one row."""

from __future__ import annotations

from typing import Any, BinaryIO

import pyarrow as pa

from curation.errors import BadSource
from curation.export.clips.remux import copy_packets
from curation.export.clips.settings import ADMITTED, Clip, ExportConfig, Media
from curation.export.clips.still import to_jpeg
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


def cut_copy(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.remux.copy_packets` in the child."""
    return _media(guard.call(_copied, clip, config, file=file, timeout_s=config.deadline_s(clip)))


def cut_image(file: BinaryIO, clip: Clip, config: ExportConfig, guard: Guard) -> Media:
    """`curation.export.clips.still.to_jpeg` in the child."""
    return _media(guard.call(_as_jpeg, clip, config, file=file, timeout_s=config.deadline_s(clip)))


def picture_stream_index(file: BinaryIO, config: ExportConfig, guard: Guard) -> int:
    """Index of the stream that was measured, among all streams of a video."""
    found = guard.call(_picture_stream, file=file, timeout_s=config.timeout_s)["stream"]
    return int(found["index"][0].as_py())


def _picture_stream(file: BinaryIO) -> dict[str, pa.Table]:
    with open_video(file, ADMITTED) as container:
        return {"stream": pa.table({"index": [picture_stream(container).index]})}


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
