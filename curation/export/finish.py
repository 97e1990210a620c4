"""The index and the manifest over all shards of a selection."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.clip_ids import ClipIds, id_keys
from curation.corpus.generations import (
    CommittedShard,
    Plan,
    by_export,
    committed_names,
    latest_tries,
    not_superseded,
    read_plans,
    read_shard,
    replaced_names,
)
from curation.corpus.manifest import canonical_json
from curation.corpus.schema import SELECTION, SHARD_INDEX, schema
from curation.corpus.scratch import scratch_folder
from curation.corpus.selection import read_verdicts, verdict_parts, verdicts_digest
from curation.corpus.shards import (
    FORMAT_VERSION,
    GENERATION,
    STILL_SELECTED,
    count_engines,
    manifest_digest,
    read_manifest,
)
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart

ROWS_PER_GROUP = 65_536
"""Rows of the index in one row group: about 20 MB, the least that a reader must take at once."""
_OF_ALL = ("format_version", "selection", "made_by", "rules", "layers")
_OF_ONE = ("generation", "export", "selection_sha256", "replaces")
OF_THE_SELECTION = ["tier", "sampling_weight", "split"]
"""Columns whose values are the selection's of today."""


def finish_shards(
    store: Store, selection: str, *, all_exported: bool | None = True
) -> dict[str, Any]:
    """Bring index.parquet, then manifest.json up to all that is exported; returns the manifest.

    The manifest is the last file of an export: a reader that finds it finds everything it names. While
    an index is put in the place of an earlier one there is none.

    Args:
        store: the corpus.
        selection: name of the selection.
        all_exported: whether every clip that the selection keeps is in a shard, as after an export;
            otherwise the manifest does not say that the shards are the selection's own. None: whether
            they are is counted.

    Raises:
        CorpusError: if shards of a plan are missing.
        TornPart: if a shard's rows are damaged, not of a plan, or not those of an earlier manifest.
    """
    plans = read_plans(store, selection)
    if not plans:
        raise CorpusError(
            f"{store.root} holds no shards of selection {selection!r}; `lavie export` makes them"
        )
    earlier = None
    if store.exists(layout.shard_manifest(selection)):
        earlier = read_manifest(store, selection)
        if _is_up_to_date(store, selection, earlier, plans):
            return earlier
    _check_complete(store, selection, plans)
    with scratch_folder("lavie-index-") as scratch:
        path = scratch / "index.parquet"
        manifest = _gather(store, selection, plans, path, all_exported=all_exported)
        if earlier is not None:
            replaced = {layout.shard(*named) for named in replaced_names(plans)}
            named = earlier["files"].items()
            kept = {n: entry for n, entry in named if n.rpartition(".")[0] not in replaced}
            _check_kept(store, selection, kept, manifest["files"])
        if earlier is None or manifest["contents"] != earlier["contents"]:
            store.delete(layout.shard_manifest(selection))
            store.put_file(layout.shard_index(selection), path)
    store.write(layout.shard_manifest(selection), canonical_json(manifest))
    return manifest


def _is_up_to_date(
    store: Store, selection: str, manifest: Mapping[str, Any], plans: list[Plan]
) -> bool:
    """Whether neither shards nor verdicts have come since the manifest was written."""
    finished = {entry["generation"] for entry in manifest["generations"]}
    return all(plan["generation"] in finished for plan in plans) and manifest[
        "selection_sha256"
    ] == verdicts_digest(store, selection)


def _check_complete(store: Store, selection: str, plans: list[Plan]) -> None:
    there = {*committed_names(store, selection), *replaced_names(plans)}
    planned = [
        (bucket, counts.get("first_shard", 0) + number)
        for plan in plans
        if "closed_early" not in plan
        for bucket, counts in sorted(plan["buckets"].items())
        for number in range(counts["num_shards"])
    ]
    missing = [named for named in planned if named not in there]
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(planned)} shards are missing under "
            f"{store.root}/{layout.shards(selection)}, the first is {layout.shard(*missing[0])}; "
            f"run `lavie export` again"
        )


def _check_kept(
    store: Store, selection: str, earlier: Mapping[str, Any], files: Mapping[str, Any]
) -> None:
    """Check that growing left every finished shard as it was."""
    for name, entry in earlier.items():
        is_of_shard = "/" in name
        if is_of_shard and files.get(name, {}).get("sha256") != entry["sha256"]:
            raise TornPart(
                f"{store.root}/{layout.shards(selection)}/{name}: not the file that the manifest "
                f"names; `lavie verify` looks at all"
            )


def _gather(
    store: Store, selection: str, plans: list[Plan], path: Path, *, all_exported: bool | None
) -> dict[str, Any]:
    """Write the index of all shards to a local file; returns the manifest."""
    verdicts = CurrentVerdicts(store, selection)
    files: dict[str, dict[str, Any]] = {}
    counts = {plan["generation"]: _Counts() for plan in plans}
    buckets: dict[str, dict[str, int]] = {}
    reasons: Counter[str] = Counter()
    engines: Counter[str] = Counter()
    generations = by_export(plans)
    num_selected = 0
    names = sorted(set(committed_names(store, selection)) - replaced_names(plans))
    latest: dict[str, int] = {}
    if any("retries" in plan for plan in plans):
        latest = latest_tries(read_shard(store, selection, n, generations).rows for n in names)
    with _IndexWriter(path) as index:
        for named in names:
            shard = read_shard(store, selection, named, generations)
            entries = _entries(shard)
            files |= entries
            shard = replace(shard, rows=not_superseded(shard.rows, latest))
            own = counts[shard.generation]
            own.add(shard.rows, has_tar=f"{shard.name}.tar" in entries)
            reasons.update(r for r in shard.rows["export_reject"].to_pylist() if r is not None)
            of_bucket = buckets.setdefault(shard.bucket, {"num_shards": 0, "num_clips": 0})
            of_bucket["num_shards"] += 1
            of_bucket["num_clips"] += shard.rows.num_rows
            rows = verdicts.of_today(shard)
            num_selected += pc.sum(rows[STILL_SELECTED.name]).as_py() or 0
            engines.update(count_engines(rows))
            index.add(rows)
    if all_exported:
        assert num_selected == verdicts.num_kept, "every selected clip has one row"
    is_own = num_selected == verdicts.num_kept if all_exported is None else all_exported
    files["index.parquet"] = _entry(path, index.num_rows)
    totals = _total(counts.values())
    of_all: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "selection": selection,
        "made_by": plans[-1]["made_by"],
        "rules": plans[-1].get("rules"),
        "layers": plans[-1]["layers"],
    }
    manifest = {
        **of_all,
        "selection_sha256": verdicts.digest if is_own else "",
        "num_selected": num_selected,
        "num_no_longer_selected": index.num_rows - num_selected,
        **totals,
        "failed": dict(sorted(reasons.items())),
        "caption_engines": dict(sorted(engines.items())),
        "buckets": buckets,
        "generations": [_generation(plan, counts[plan["generation"]], of_all) for plan in plans],
        "contents": hashlib.sha256(canonical_json(files)).hexdigest(),
        "files": files
        | {name: _plan_entry(store, selection, name) for name in map(_plan_name, plans)},
    }
    return manifest | {"digest": manifest_digest(manifest)}


def _generation(plan: Plan, counts: _Counts, of_all: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of one generation: enough to write its plan again (`plan_of`)."""
    told = {
        "generation": plan["generation"],
        "export": plan["export"],
        "plan": _plan_name(plan),
        "selection_sha256": plan["selection_sha256"],
        **({"replaces": plan["replaces"]} if "replaces" in plan else {}),
    }
    known = {**of_all, **told}
    planned = {key: value for key, value in plan.items() if known.get(key, ...) != value}
    return {**told, **asdict(counts), "planned": planned}


def plan_of(manifest: Mapping[str, Any], generation: Mapping[str, Any]) -> Plan:
    """The plan of one generation, from what a manifest says of all and of it."""
    of_all = {key: manifest[key] for key in _OF_ALL}
    own = {key: generation[key] for key in _OF_ONE if key in generation}
    return {**of_all, **own, **generation.get("planned", {})}


def _plan_name(plan: Plan) -> str:
    return layout.shard_plan("", plan["generation"]).rpartition("/")[2]


@dataclass(slots=True)
class _Counts:
    """What came of some shards."""

    num_clips: int = 0
    num_failed: int = 0
    num_shards: int = 0

    def add(self, rows: pa.Table, *, has_tar: bool) -> None:
        self.num_failed += rows["shard"].null_count
        self.num_clips += rows.num_rows - rows["shard"].null_count
        self.num_shards += has_tar


def _total(counts: Iterable[_Counts]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for own in counts:
        total.update(asdict(own))
    return {field.name: total[field.name] for field in fields(_Counts)}


class CurrentVerdicts:
    """What a selection says today, to be laid beside what was exported.

    Args:
        store: the corpus.
        selection: name of a finished selection.
    """

    def __init__(self, store: Store, selection: str) -> None:
        digest = hashlib.sha256()
        keys, columns = [np.empty(0, np.uint64)], [schema(SELECTION).empty_table()]
        for path in verdict_parts(store, selection):
            digest.update(store.read(path))
            part = layout.part_number(path)
            assert part is not None, path
            table = read_verdicts(store, selection, part)
            kept = table.filter(table["keep"])
            keys.append(id_keys(kept["clip_id"]))
            columns.append(kept.cast(columns[0].schema))
        self._ids = ClipIds(np.concatenate(keys))
        self._columns = pa.concat_tables(columns).select(OF_THE_SELECTION).combine_chunks()
        self.num_kept = len(self._ids)
        self.digest = digest.hexdigest()

    def of_today(self, shard: CommittedShard) -> pa.Table:
        """Index rows of a shard, tier, weight and split as they are now; call it once a shard."""
        places = self._ids.take(id_keys(shard.rows["clip_id"]))
        is_kept = pa.array(places >= 0)
        rows = shard.rows.replace_schema_metadata(None)
        if self.num_kept:
            now = self._columns.take(pa.array(np.maximum(places, 0)))
            for name in OF_THE_SELECTION:
                at = rows.column_names.index(name)
                rows = rows.set_column(
                    at, rows.schema.field(at), pc.if_else(is_kept, now[name], rows[name])
                )
        generation = pa.repeat(pa.scalar(shard.generation, GENERATION.type), rows.num_rows)
        rows = rows.append_column(GENERATION.field, generation)
        return rows.append_column(STILL_SELECTED.field, is_kept)


def _plan_entry(store: Store, selection: str, name: str) -> dict[str, Any]:
    data = store.read(f"{layout.shards(selection)}/{name}")
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def _entries(shard: CommittedShard) -> dict[str, dict[str, Any]]:
    """The manifest's entries for the files of one shard."""
    of_rows = {"num_rows": shard.rows.num_rows, "generation": shard.generation}
    entries: dict[str, dict[str, Any]] = {f"{shard.name}.parquet": shard.entry | of_rows}
    if shard.made["tar"] is not None:
        entries[f"{shard.name}.tar"] = shard.made["tar"] | {
            "num_clips": shard.rows.num_rows - shard.rows["shard"].null_count,
            "encoder": shard.made["encoder"],
            "generation": shard.generation,
        }
    return entries


def _entry(path: Path, num_rows: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "size_bytes": path.stat().st_size, "num_rows": num_rows}


class _IndexWriter:
    """Writes rows in groups of a fixed size, however they come."""

    def __init__(self, path: Path) -> None:
        self.num_rows = 0
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self._file = pq.ParquetWriter(
            path, schema(SHARD_INDEX), compression="zstd", write_page_checksum=True
        )

    def __enter__(self) -> _IndexWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._file.close()

    def add(self, rows: pa.Table) -> None:
        self.num_rows += rows.num_rows
        self._num_waiting += rows.num_rows
        self._waiting.append(rows.cast(schema(SHARD_INDEX)))
        if self._num_waiting >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting), row_group_size=ROWS_PER_GROUP)
        self._waiting, self._num_waiting = [], 0
