"""Which clip goes into which shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo, canonical_json
from curation.corpus.parts import read_table
from curation.corpus.selection import read_rules, read_verdicts
from curation.corpus.shards import FORMAT_VERSION
from curation.corpus.store import Store
from curation.errors import CorpusError
from curation.export.clips import ExportConfig
from curation.stations.station import settings_digest

VERSION = 1
"""Raised by one whenever the same settings would give other shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The clips of one shard."""

    bucket: str
    """Folder under the selection's shards."""
    number: int
    """Position in the bucket, from 0."""
    clips: pa.Table
    """`part` and `row` (of the part's scenes layer), int32, both rising."""

    @property
    def name(self) -> str:
        """Path of the shard under the selection's shards, without extension."""
        return layout.shard(self.bucket, self.number)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Kept clips of all parts as columns, in the order of part and row."""

    part: NDArray[np.int32]
    row: NDArray[np.int32]
    bucket: NDArray[np.int32]
    length_us: NDArray[np.int64]
    buckets: list[str]
    digest: str


def plan_shards(
    store: Store, info: CorpusInfo, selection: str, config: ExportConfig
) -> Iterator[ShardPlan]:
    """Deal the kept clips into shards: bucket by bucket, each in the order of part and row.

    That order keeps the clips of one source together, so that it is fetched once a shard. What the
    shards are made from is written to plan.json before the first is yielded.

    Args:
        store: the corpus.
        info: contents of corpus.json.
        selection: name of a finished selection.
        config: how to cut and how much goes into a shard.

    Raises:
        CorpusError: if there is no such selection, or there are shards of this name that were made
            from other settings, another selection or other layers.
    """
    read_rules(store, selection)
    kept = _read_kept(store, info, selection)
    order = np.argsort(kept.bucket, kind="stable")
    bounds = np.searchsorted(kept.bucket[order], np.arange(len(kept.buckets) + 1))
    deal: list[tuple[str, int, NDArray[np.int64]]] = []
    for code, bucket in enumerate(kept.buckets):
        members = order[bounds[code] : bounds[code + 1]]
        bounds_of = pieces(kept.length_us[members], config)
        deal += [(bucket, n, members[begin:end]) for n, (begin, end) in enumerate(bounds_of)]
    if not deal:
        return
    _record(store, info, selection, config, kept, deal)
    for bucket, number, members in deal:
        clips = pa.table({"part": kept.part[members], "row": kept.row[members]})
        yield ShardPlan(bucket=bucket, number=number, clips=clips)


def _read_kept(store: Store, info: CorpusInfo, selection: str) -> _Kept:
    """Kept clips; 20 bytes each, so that 25 million fit on a laptop."""
    columns: dict[str, list[NDArray[Any]]] = {"part": [], "row": [], "bucket": [], "length_us": []}
    codes: dict[str, int] = {}
    digest = hashlib.sha256()
    for part in range(info.num_parts):
        digest.update(store.read(f"{layout.selection(selection)}/{layout.part_file(part)}"))
        verdicts = read_verdicts(store, selection, part, ["keep", "bucket"])
        row = np.flatnonzero(verdicts["keep"].to_numpy(zero_copy_only=False)).astype(np.int32)
        scenes = layout.layer(info.layers["scenes"], part)
        duration_s = read_table(store, scenes, ["duration_s"])["duration_s"]
        if len(duration_s) != verdicts.num_rows:
            raise CorpusError(
                f"selection {selection!r} has {verdicts.num_rows} rows in part {part}, the scenes "
                f"layer {len(duration_s)}: it was made from other layers; run `lavie select` again"
            )
        names = pc.dictionary_encode(pc.take(verdicts["bucket"], pa.array(row))).combine_chunks()
        own = [codes.setdefault(name, len(codes)) for name in names.dictionary.to_pylist()]
        columns["part"].append(np.full(len(row), part, np.int32))
        columns["row"].append(row)
        columns["bucket"].append(np.array(own, np.int32)[names.indices.to_numpy()])
        seconds = duration_s.to_numpy()[row].astype(np.float64)
        columns["length_us"].append(np.rint(seconds * 1e6).astype(np.int64))
    joined = {
        name: np.concatenate(parts or [np.empty(0, np.int32)]) for name, parts in columns.items()
    }
    buckets = sorted(codes)
    in_order = np.array([buckets.index(name) for name in codes], np.int32)
    return _Kept(
        part=joined["part"],
        row=joined["row"],
        bucket=in_order[joined["bucket"]] if buckets else np.empty(0, np.int32),
        length_us=joined["length_us"],
        buckets=buckets,
        digest=digest.hexdigest(),
    )


def pieces(length_us: NDArray[np.int64], config: ExportConfig) -> Iterator[tuple[int, int]]:
    """Bounds of the shards of one bucket: as many clips as both limits allow, at least one."""
    ends_us = np.cumsum(length_us)
    limit_us = round(config.max_seconds_per_shard * 1e6)
    begin = 0
    while begin < len(length_us):
        before_us = int(ends_us[begin - 1]) if begin else 0
        by_time = int(np.searchsorted(ends_us, before_us + limit_us, side="right"))
        end = max(begin + 1, min(begin + config.max_clips_per_shard, by_time))
        yield begin, min(end, len(length_us))
        begin = end


def _record(
    store: Store,
    info: CorpusInfo,
    selection: str,
    config: ExportConfig,
    kept: _Kept,
    deal: list[tuple[str, int, NDArray[np.int64]]],
) -> None:
    """Write plan.json, or check that the one there says the same."""
    made = {"name": "shards", "version": VERSION, "settings": asdict(config)}
    counts = {bucket: {"num_shards": 0, "num_clips": 0} for bucket in kept.buckets}
    for bucket, _, members in deal:
        counts[bucket]["num_shards"] += 1
        counts[bucket]["num_clips"] += len(members)
    plan = {
        "format_version": FORMAT_VERSION,
        "export": settings_digest(made, [*info.layers.values(), kept.digest]),
        "made_by": made,
        "selection": selection,
        "selection_sha256": kept.digest,
        "layers": dict(info.layers),
        "num_selected": len(kept.part),
        "buckets": counts,
    }
    data = canonical_json(plan)
    name = layout.shard_plan(selection)
    if store.exists(name):
        if store.read(name) != data:
            raise CorpusError(
                f"{store.root}/{layout.shards(selection)} holds shards that were made from other "
                f"settings, layers or verdicts ({name} says which): delete that folder, or select "
                f"under another name"
            )
        return
    store.write(name, data)


def read_plan(store: Store, selection: str) -> dict[str, Any]:
    """plan.json of a selection's shards.

    Raises:
        CorpusError: if no export was begun.
    """
    try:
        content: dict[str, Any] = json.loads(store.read(layout.shard_plan(selection)))
    except FileNotFoundError as error:
        raise CorpusError(
            f"{store.root} holds no shards of selection {selection!r}; `lavie export` makes them"
        ) from error
    return content
