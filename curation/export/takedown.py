"""Samples leave finished shards: the tars that hold some are written anew, without them.

The others of such a tar are copied byte for byte. The new tar gets the next number of its bucket, since a
name that a reader may hold in a cache must never stand for other bytes; the old one is deleted. Together
the new tars are a generation, whose plan says which took the place of which.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.generations import (
    CommittedShard,
    Plan,
    by_export,
    close_plan,
    committed_names,
    finished_generations,
    read_plans,
    read_shard,
    replaced_names,
    write_plan,
)
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import to_parquet
from curation.corpus.removal import Change
from curation.corpus.schema import SHARD_ROWS, schema
from curation.corpus.selection import verdicts_digest
from curation.corpus.shards import FORMAT_VERSION
from curation.corpus.store import Store
from curation.export.tar import ShardTar
from curation.stations.station import settings_digest

_MEMBERS = ("media", "json", "txt")


@dataclass(frozen=True, slots=True)
class RewrittenShard:
    """One shard whose removed samples are gone."""

    name: str
    """Path of the old one under the selection's shards, without extension."""
    changes: tuple[Change, ...]
    """What became of its files."""
    media_sha256: tuple[str, ...]
    """Digests of the media that went."""


def rewrite_shards(
    store: Store, info: CorpusInfo, selection: str, ids: pa.Array
) -> Iterator[RewrittenShard]:
    """Write every shard of a selection that holds some clips anew, without them.

    What a killed run has done is not done again. The index and the manifest still name the old files
    when this ends; `finish_shards` is next.

    Args:
        store: the corpus.
        info: its contents.
        selection: name of a selection with shards.
        ids: clip ids that go.
    """
    plans = read_plans(store, selection)
    if not plans:
        return
    finished = finished_generations(store, selection)
    last = plans[-1]
    if last["generation"] not in finished and not {"closed_early", "replaces"} & set(last):
        close_plan(store, last)
        plans = read_plans(store, selection)
    generations = by_export(plans)
    named = [
        n for n in committed_names(store, selection) if _holds(store, selection, n, plans, ids)
    ]
    plan = _plan(store, info, selection, plans, named)
    for old in named:
        shard = read_shard(store, selection, old, generations)
        yield _rewrite(store, selection, shard, plan["replaces"][shard.name], plan["export"], ids)


def _holds(
    store: Store, selection: str, named: tuple[str, int], plans: list[Plan], ids: pa.Array
) -> bool:
    rows = read_shard(store, selection, named, by_export(plans)).rows
    return bool(pc.any(pc.is_in(rows["clip_id"], value_set=ids)).as_py())


def _plan(
    store: Store,
    info: CorpusInfo,
    selection: str,
    plans: list[Plan],
    named: Sequence[tuple[str, int]],
) -> Plan:
    """The plan of the new generation, written; the one that was begun, where there is one."""
    finished = finished_generations(store, selection)
    if plans and "replaces" in plans[-1] and plans[-1]["generation"] not in finished:
        return plans[-1]
    if not named:
        return {"replaces": {}, "export": ""}
    last = plans[-1]
    generation = int(last["generation"]) + 1
    taken = {*committed_names(store, selection), *replaced_names(plans)}
    next_number = {bucket: 1 + max(n for b, n in taken if b == bucket) for bucket, _ in taken}
    replaces: dict[str, str] = {}
    buckets: dict[str, dict[str, int]] = {}
    for bucket, number in named:
        counts = buckets.setdefault(bucket, {"first_shard": next_number[bucket], "num_shards": 0})
        replaces[layout.shard(bucket, number)] = layout.shard(bucket, next_number[bucket])
        next_number[bucket] += 1
        counts["num_shards"] += 1
    made = {"name": "takedown", "version": 1, "settings": {}}
    plan: Plan = {
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "export": settings_digest(made, [*by_export(plans), *replaces, f"generation {generation}"]),
        "made_by": last["made_by"],
        "selection": selection,
        "selection_sha256": verdicts_digest(store, selection),
        "rules": last.get("rules"),
        "layers": last["layers"],
        "num_selected": 0,
        "buckets": buckets,
        "replaces": replaces,
    }
    write_plan(store, plan)
    return plan


def _rewrite(
    store: Store, selection: str, shard: CommittedShard, new_name: str, export: str, ids: pa.Array
) -> RewrittenShard:
    """One new tar and its rows, then the old ones go; a shard without a clip left stays as rows only."""
    folder = layout.shards(selection)
    kept = pc.invert(pc.is_in(shard.rows["clip_id"], value_set=ids))
    rows = shard.rows.filter(kept).to_pylist()
    gone = shard.rows.filter(pc.invert(kept)).to_pylist()
    media = tuple(_media_sha256(store, folder, row) for row in gone if row["shard"] is not None)
    made: dict[str, Any] = {"export": export, "encoder": shard.made["encoder"], "tar": None}
    with tempfile.TemporaryDirectory(prefix="lavie-takedown-") as scratch:
        path = Path(scratch) / "shard.tar"
        with ShardTar(path) as tar:
            new = [_copy(store, folder, tar, row, new_name) for row in rows]
        if any(row["shard"] is not None for row in new):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            made["tar"] = {"sha256": digest, "size_bytes": path.stat().st_size}
            store.put_file(f"{folder}/{new_name}.tar", path)
    data = to_parquet(pa.Table.from_pylist(new, schema=schema(SHARD_ROWS)), made_by=made)
    store.write(f"{folder}/{new_name}.parquet", data)
    changes = [
        Change(
            file=f"{folder}/{shard.name}.parquet",
            num_removed=len(gone),
            sha256_before=shard.entry["sha256"],
            sha256_after=hashlib.sha256(data).hexdigest(),
            file_after=f"{folder}/{new_name}.parquet",
        )
    ]
    if shard.made["tar"] is not None:
        changes.append(
            Change(
                file=f"{folder}/{shard.name}.tar",
                num_removed=len(media),
                sha256_before=shard.made["tar"]["sha256"],
                sha256_after=made["tar"]["sha256"] if made["tar"] else None,
                file_after=f"{folder}/{new_name}.tar" if made["tar"] else None,
            )
        )
    store.delete(f"{folder}/{shard.name}.tar")  # its rows, which say that it is there, go last
    store.delete(f"{folder}/{shard.name}.parquet")
    return RewrittenShard(shard.name, tuple(changes), media)


def _member(store: Store, folder: str, row: dict[str, Any], part: str) -> bytes:
    return store.read_range(
        f"{folder}/{row['shard']}", offset=row[f"{part}_offset"], size_bytes=row[f"{part}_size"]
    )


def _media_sha256(store: Store, folder: str, row: dict[str, Any]) -> str:
    """Digest of a sample's media, as its .json says."""
    facts = json.loads(_member(store, folder, row, "json"))
    return str(facts["media_sha256"])


def _copy(
    store: Store, folder: str, tar: ShardTar, row: dict[str, Any], new_name: str
) -> dict[str, Any]:
    """Put one sample into the new tar; returns its index row."""
    if row["shard"] is None:
        return row
    extensions = {"media": row["media_name"].rpartition(".")[2], "json": "json", "txt": "txt"}
    moved = dict(row) | {"shard": f"{new_name}.tar"}
    for part in _MEMBERS:
        data = _member(store, folder, row, part) if row[f"{part}_size"] else b""
        moved[f"{part}_offset"] = tar.add(f"{row['key']}.{extensions[part]}", data)
    return moved
