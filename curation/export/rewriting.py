"""Finished shards are written anew: without samples that must go, or with today's facts and captions.

Whatever else such a tar holds is copied byte for byte. The new tar gets the next number of its bucket,
since a name that a reader may hold in a cache must never stand for other bytes; the old one is deleted, at
once if it holds what must go, else when the manifest names the new one. Together the new tars are a
generation, whose plan says which took the place of which. Killed anywhere, each shard is the old one or
the new one: `curation.corpus.generations.close_plan` keeps what was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.generations import (
    CommittedShard,
    Plan,
    by_export,
    close_plan,
    committed_names,
    delete_replaced,
    finished_generations,
    read_plans,
    read_shard,
    replaced_names,
    write_plan,
)
from curation.corpus.parts import in_order, to_parquet
from curation.corpus.removal import Change
from curation.corpus.schema import SHARD_ROWS, schema
from curation.corpus.scratch import scratch_folder
from curation.corpus.selection import verdicts_digest
from curation.corpus.shards import FORMAT_VERSION
from curation.corpus.store import Store
from curation.export.facts import Facts, facts_digest, renewed_facts
from curation.export.outdated import FactsOfToday
from curation.export.tar import ShardTar
from curation.stations.station import settings_digest

THREADS = 8
"""Shards that are written anew at the same time: they wait for the store."""
_MEMBERS = ("media", "json", "txt")
_Purpose = Literal["takedown", "texts"]
_Edits = Mapping[int, Facts | None]
"""Place of a row in its shard -> what the clip knows about itself now; None for one that goes."""


@dataclass(frozen=True, slots=True)
class RewrittenShard:
    """One shard that another has taken the place of."""

    name: str
    """Path of the old one under the selection's shards, without extension."""
    changes: tuple[Change, ...]
    """What became of its files."""
    media_sha256: tuple[str, ...]
    """Digests of the media that went."""
    num_renewed: int
    """Samples that got another .json and .txt."""


def without_clips(store: Store, selection: str, ids: pa.Array) -> Iterator[RewrittenShard]:
    """Write every shard of a selection that holds some clips anew, without them.

    The old ones are deleted at once, and what a killed run has done is not done again. The index and the
    manifest still name the old files when this ends; `finish_shards` is next.

    Args:
        store: the corpus.
        selection: name of a selection with shards.
        ids: clip ids that go.
    """
    _close_begun(store, selection, "takedown")
    delete_replaced(store, selection)
    generations = by_export(read_plans(store, selection))
    named = [
        name
        for name in committed_names(store, selection)
        if _gone(read_shard(store, selection, name, generations), ids)
    ]
    rewriting = _Rewriting(store, selection, _plan(store, selection, named, "takedown"))
    for name in named:
        shard = read_shard(store, selection, name, generations)
        done = rewriting.rewrite(shard, dict.fromkeys(_gone(shard, ids)))
        for kind in ("tar", "parquet"):  # the rows, which say that the tar is there, go last
            store.delete(f"{layout.shards(selection)}/{shard.name}.{kind}")
        yield done


def with_facts_of_today(
    store: Store, selection: str, today: FactsOfToday, named: Sequence[tuple[str, int]]
) -> Iterator[RewrittenShard]:
    """Write shards anew with the .json and .txt that their clips would get today; media stay.

    The old shards stay for their readers until `finish_shards`, which is next; then `delete_replaced`.

    Args:
        store: the corpus.
        selection: name of a selection with shards.
        today: what the clips know about themselves.
        named: bucket and number of the shards that hold something else, from `today`.
    """
    _close_begun(store, selection, "texts")
    generations = by_export(read_plans(store, selection))
    rewriting = _Rewriting(store, selection, _plan(store, selection, named, "texts"))

    def rewrite(place: int) -> RewrittenShard:
        shard = read_shard(store, selection, named[place], generations)
        return rewriting.rewrite(shard, dict(today.outdated(shard.rows)))

    for _, done in in_order(rewrite, range(len(named)), threads=THREADS):
        yield done


def _gone(shard: CommittedShard, ids: pa.Array) -> list[int]:
    """Places of the rows whose clips go."""
    is_gone = pc.is_in(shard.rows["clip_id"], value_set=ids)
    return [int(place) for place in np.flatnonzero(is_gone.to_numpy())]


def _unfinished(store: Store, selection: str, plans: list[Plan]) -> Plan | None:
    """The plan of a generation that may still be gone on with."""
    if not plans or "closed_early" in plans[-1]:
        return None
    return None if plans[-1]["generation"] in finished_generations(store, selection) else plans[-1]


def _purpose(plan: Plan) -> str | None:
    """What shards are written anew for by a plan; None for one that cuts clips."""
    return plan.get("rewritten_for", "takedown") if "replaces" in plan else None


def _close_begun(store: Store, selection: str, purpose: _Purpose) -> None:
    """End a generation that was begun for anything else: what it has done stays."""
    begun = _unfinished(store, selection, read_plans(store, selection))
    if begun is not None and _purpose(begun) != purpose:
        close_plan(store, begun)


def _plan(
    store: Store, selection: str, named: Sequence[tuple[str, int]], purpose: _Purpose
) -> Plan:
    """The plan of the new generation, written; the one that was begun, where there is one."""
    plans = read_plans(store, selection)
    begun = _unfinished(store, selection, plans)
    if begun is not None and {layout.shard(*name) for name in named} <= set(begun["replaces"]):
        return begun
    if not named:
        return {"replaces": {}, "export": ""}
    if begun is not None:
        close_plan(store, begun)
        plans = read_plans(store, selection)
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
    made: dict[str, Any] = {"name": purpose, "version": 1, "settings": {}}
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
        "rewritten_for": purpose,
    }
    write_plan(store, plan)
    return plan


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """One generation of shards that take the place of others."""

    store: Store
    selection: str
    plan: Plan

    @property
    def folder(self) -> str:
        return layout.shards(self.selection)

    def rewrite(self, shard: CommittedShard, edits: _Edits) -> RewrittenShard:
        """One new tar and its rows; a shard without a sample left stays as rows only."""
        new_name = self.plan["replaces"][shard.name]
        rows = _rows(shard)
        gone = [rows[place] for place, facts in edits.items() if facts is None]
        media = tuple(self._media_sha256(row) for row in gone if row["shard"] is not None)
        made: dict[str, Any] = {
            "export": self.plan["export"],
            "encoder": shard.made["encoder"],
            "tar": None,
        }
        with scratch_folder("lavie-rewriting-") as scratch:
            path = scratch / "shard.tar"
            with ShardTar(path) as tar:
                new = [
                    self._put(tar, row, new_name, edits.get(place))
                    for place, row in enumerate(rows)
                    if edits.get(place, row) is not None
                ]
            if any(row["shard"] is not None for row in new):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                made["tar"] = {"sha256": digest, "size_bytes": path.stat().st_size}
                self.store.put_file(f"{self.folder}/{new_name}.tar", path)
        data = to_parquet(pa.Table.from_pylist(new, schema=schema(SHARD_ROWS)), made_by=made)
        self.store.write(f"{self.folder}/{new_name}.parquet", data)
        changes = [
            self._change(f"{shard.name}.parquet", shard.entry, f"{new_name}.parquet", _entry(data))
        ]
        if shard.made["tar"] is not None:
            changes.append(
                self._change(f"{shard.name}.tar", shard.made["tar"], f"{new_name}.tar", made["tar"])
            )
        return RewrittenShard(
            name=shard.name,
            changes=tuple(
                replace(change, num_removed=number)
                for change, number in zip(changes, (len(gone), len(media)), strict=False)
            ),
            media_sha256=media,
            num_renewed=len(edits) - len(gone),
        )

    def _change(
        self,
        file: str,
        before: Mapping[str, Any],
        file_after: str,
        after: Mapping[str, Any] | None,
    ) -> Change:
        return Change(
            file=f"{self.folder}/{file}",
            num_removed=0,
            sha256_before=before["sha256"],
            sha256_after=after["sha256"] if after else None,
            file_after=f"{self.folder}/{file_after}" if after else None,
        )

    def _members(self, row: dict[str, Any]) -> dict[str, bytes]:
        """The bytes of a sample's members, in one request."""
        sizes = {part: row[f"{part}_size"] for part in _MEMBERS}
        begin = min(row[f"{part}_offset"] for part in _MEMBERS)
        end = max(row[f"{part}_offset"] + size for part, size in sizes.items())
        data = self.store.read_range(
            f"{self.folder}/{row['shard']}", offset=begin, size_bytes=end - begin
        )
        places = {part: row[f"{part}_offset"] - begin for part in _MEMBERS}
        return {part: data[places[part] : places[part] + sizes[part]] for part in _MEMBERS}

    def _media_sha256(self, row: dict[str, Any]) -> str:
        """Digest of a sample's media, as its .json says."""
        return str(json.loads(self._members(row)["json"])["media_sha256"])

    def _put(
        self, tar: ShardTar, row: dict[str, Any], new_name: str, facts: Facts | None
    ) -> dict[str, Any]:
        """Put one sample into the new tar, with other facts if there are any; returns its index row."""
        if row["shard"] is None:
            return row
        members = self._members(row)
        moved = dict(row) | {"shard": f"{new_name}.tar"}
        if facts is not None:
            old = json.loads(members["json"])
            new = renewed_facts(old, facts, export=self.plan["export"])
            members["json"] = json.dumps(new, sort_keys=True, allow_nan=False).encode()
            members["txt"] = (facts.get("caption") or "").encode()
            moved |= {name: facts.get(name) for name in ("caption", "caption_engine")}
            moved["facts_digest"] = facts_digest(facts)
            moved["facts_generation"] = self.plan["generation"]
        extensions = {"media": row["media_name"].rpartition(".")[2], "json": "json", "txt": "txt"}
        for part in _MEMBERS:
            moved[f"{part}_offset"] = tar.add(f"{row['key']}.{extensions[part]}", members[part])
            moved[f"{part}_size"] = len(members[part])
        return moved


def _rows(shard: CommittedShard) -> list[dict[str, Any]]:
    """Rows of a shard; those of an earlier program, which copied none, get their `facts_generation`."""
    rows: list[dict[str, Any]] = shard.rows.to_pylist()
    for row in rows:
        if row["shard"] is not None and row["facts_generation"] is None:
            row["facts_generation"] = shard.generation
    return rows


def _entry(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}
