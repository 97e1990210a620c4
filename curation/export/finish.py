"""The index and the manifest over all shards of a selection."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.manifest import canonical_json
from curation.corpus.parts import LAYER_METADATA
from curation.corpus.schema import SHARD_INDEX, schema
from curation.corpus.shards import manifest_digest
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart
from curation.export.shard_plan import read_plan

ROWS_PER_GROUP = 65_536
"""Rows of the index in one row group: about 20 MB, the least that a reader must take at once."""


def finish_shards(store: Store, selection: str) -> dict[str, Any]:
    """Write index.parquet, then manifest.json; returns the manifest.

    The manifest is the last file of an export: a reader that finds it finds everything it names.

    Raises:
        CorpusError: if shards of the plan are missing.
        TornPart: if a shard's rows are damaged or not of this plan.
    """
    plan = read_plan(store, selection)
    folder = layout.shards(selection)
    _check_complete(store, folder, plan)
    files: dict[str, dict[str, Any]] = {}
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="lavie-index-") as scratch:
        path = Path(scratch) / "index.parquet"
        with _IndexWriter(path) as index:
            for name in _planned(plan):
                rows, entries = _committed(store, folder, name, plan["export"])
                files |= entries
                reasons.update(r for r in rows["export_reject"].to_pylist() if r is not None)
                index.add(rows)
        files["index.parquet"] = _entry(path, index.num_rows)
        store.put_file(layout.shard_index(selection), path)
    num_failed = reasons.total()
    assert index.num_rows == plan["num_selected"], "every selected clip has one row"
    num_clips = sum(e["num_clips"] for n, e in files.items() if n.endswith(".tar"))
    assert num_clips + num_failed == plan["num_selected"], "selected = exported + failed"
    manifest = plan | {
        "num_clips": num_clips,
        "num_failed": num_failed,
        "failed": dict(sorted(reasons.items())),
        "num_shards": sum(name.endswith(".tar") for name in files),
        "files": files,
    }
    manifest["digest"] = manifest_digest(manifest)
    store.write(layout.shard_manifest(selection), canonical_json(manifest))
    return manifest


def _planned(plan: dict[str, Any]) -> Iterator[str]:
    """Names of all shards of a plan, in its order."""
    for bucket, counts in sorted(plan["buckets"].items()):
        for number in range(counts["num_shards"]):
            yield layout.shard(bucket, number)


def _check_complete(store: Store, folder: str, plan: dict[str, Any]) -> None:
    there = set(store.files(folder, recursive=True))
    missing = [name for name in _planned(plan) if f"{folder}/{name}.parquet" not in there]
    if missing:
        raise CorpusError(
            f"{len(missing)} of {sum(1 for _ in _planned(plan))} shards are missing under "
            f"{store.root}/{folder}, the first is {missing[0]}; run `lavie export` again"
        )


def _committed(
    store: Store, folder: str, name: str, export: str
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Index rows of one shard, and the manifest's entries for its files."""
    data = store.read(f"{folder}/{name}.parquet")
    try:
        rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TornPart(f"{store.root}/{folder}/{name}.parquet: damaged ({error})") from error
    made = json.loads((rows.schema.metadata or {}).get(LAYER_METADATA, b"{}"))
    if made.get("export") != export:
        raise TornPart(f"{store.root}/{folder}/{name}.parquet: not made from this plan")
    entries: dict[str, dict[str, Any]] = {
        f"{name}.parquet": {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "num_rows": rows.num_rows,
        }
    }
    if made["tar"] is not None:
        num_clips = rows.num_rows - rows["shard"].null_count
        entries[f"{name}.tar"] = made["tar"] | {
            "num_clips": num_clips,
            "encoder": made["encoder"],
        }
    return rows, entries


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
