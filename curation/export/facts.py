"""The .json of a sample: what a trainer or an auditor wants to know of the clip.

Every sample of a corpus has the same keys with values of the same types, and none is null or an
empty list: `datasets` takes the type of each key from the first samples it sees and stops at a
later one that differs. So a text that is not known is empty, and a number that can be unknown is
not a key but an entry of the list "scores", which leaves it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import pyarrow as pa

from curation.corpus.schema import CLIP_COLUMNS, LAYERS, SELECTION, SOURCE_COLUMNS, SOURCES, Column
from curation.export.clips import Media

Facts = Mapping[str, Any]
"""What a clip knows about itself in the layers: `clip_id` and the columns of `clip_columns`."""
ALWAYS_KNOWN = (
    "size_bytes",
    "source_width",
    "source_height",
    "rotation_deg",
    "bit_depth",
    "source_duration_s",
    "source_num_frames",
    "scene_index",
    "start_pts",
    "end_pts",
    "time_base_num",
    "time_base_den",
    "start_s",
    "end_s",
    "duration_s",
    "start_frame",
    "num_frames",
    "width",
    "height",
)
"""Numbers that no kept clip lacks; each is a key of its own."""
NUMBERS_OF_TEXTS = ("caption_weights",)
"""Lists with a number for each text of another key; [0.0] where that one is [""]."""
LEFT_OUT = frozenset(
    {
        "source_reject",  # null in every kept clip
        "source_reject_detail",
        "scene_reject",
        "source_row",  # a position in a file of the corpus
        "num_scenes",  # of the source, not of the clip
        "listing_reject",  # null as source_reject
        "listing_reject_detail",
        "given_captions",  # those that are trained with are in `captions`
        "num_clock_jumps",
        "source_num_damaged_frames",
        "has_audio",  # of the source; no sample has sound
        "keep",
        "failed_rules",
        "cluster",  # in the selection, whose numbers need its centres
        "cluster_distance",
        "semantic_duplicate_of",  # null in every kept clip
        "caption_count",  # of the corpus as it was that day
    }
)


def _is_score(column: Column) -> bool:
    return column.name not in ALWAYS_KNOWN and (
        pa.types.is_floating(column.type)
        or pa.types.is_integer(column.type)
        or pa.types.is_boolean(column.type)
    )


def _is_texts(column: Column) -> bool:
    return pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type)


def _is_kept(column: Column) -> bool:
    """Pictures, vectors and hashes stay in the corpus."""
    is_one = not pa.types.is_list(column.type)
    return column.name not in LEFT_OUT and (
        is_one or _is_texts(column) or column.name in NUMBERS_OF_TEXTS
    )


def clip_columns(layers: Mapping[str, str]) -> list[str]:
    """Columns of sources and clips that go into the .json, of the layers that a corpus has."""
    added = (layer.columns for name, layer in LAYERS.items() if name in layers)
    columns = [*SOURCES, *chain.from_iterable(added)]
    return [c.name for c in columns if _is_kept(c) and c.name != "clip_id"]


_COLUMNS = SOURCE_COLUMNS | CLIP_COLUMNS | {c.name: c for c in SELECTION}


def sample_facts(
    row: Mapping[str, Any], media: Media, *, media_sha256: str, export: str
) -> dict[str, Any]:
    """Contents of one .json.

    Args:
        row: columns of the clip, from `clip_columns` and the selection.
        media: the cut clip.
        media_sha256: digest of its bytes.
        export: digest of the export's settings and of all that it reads.
    """
    facts = _told(row)
    # The list must not be empty either, and this number every file has.
    facts["scores"].append({"name": "media_bytes", "value": float(len(media.data))})
    return facts | {
        "media_num_frames": media.num_frames,
        "media_duration_s": float(media.duration_s),
        "media_width": media.width,
        "media_height": media.height,
        "media_sha256": media_sha256,
        "export": export,
    }


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as a .json tells them."""
    facts: dict[str, Any] = {}
    scores: list[dict[str, Any]] = []
    for name, value in row.items():
        column = _COLUMNS[name]
        if name in LEFT_OUT:
            continue
        if _is_score(column):
            scores += [] if value is None else [{"name": name, "value": float(value)}]
        elif _is_texts(column):
            facts[name] = list(value or []) or [""]
        elif name in NUMBERS_OF_TEXTS:
            facts[name] = [float(number) for number in value or []] or [0.0]
        elif pa.types.is_string(column.type):
            facts[name] = value or ""
        else:
            facts[name] = value
    return facts | {"scores": scores}


def facts_digest(clip: Facts) -> int:
    """A 64-bit digest of what a .json tells of a clip, without media, selection and export."""
    told = json.dumps(_told(clip), sort_keys=True, allow_nan=False)
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "little", signed=True)


def says(sample: Mapping[str, Any], clip: Facts) -> bool:
    """Whether a .json tells of a clip what is known of it; keys that it does not have are not missed.

    Args:
        sample: contents of the .json.
        clip: what is known.
    """
    told = _told(clip)
    scores = {score["name"]: score["value"] for score in told.pop("scores")}
    then = {s["name"]: s["value"] for s in sample["scores"] if s["name"] in clip}
    return scores == then and all(sample.get(name, value) == value for name, value in told.items())


def renewed_facts(sample: Mapping[str, Any], clip: Facts, *, export: str) -> dict[str, Any]:
    """A .json with what is known of its clip now; what it tells of media and selection stays.

    Args:
        sample: contents of the .json.
        clip: what is known.
        export: digest of the generation that it is written for.
    """
    told = _told(clip)
    others = [score for score in sample["scores"] if score["name"] not in clip]
    return {**sample, **told, "scores": [*told["scores"], *others], "export": export}
