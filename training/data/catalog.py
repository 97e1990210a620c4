"""What there is to read: the rows of an index, dealt into pools once and kept as files.

A pool is what may stand in one batch: clips of one source, kind and size. A catalog is made from
the index of one selection in one pass, and read through memory maps: what a process holds does not
grow with the corpus. It lies in the cache under a digest of all that it depends on.

::

    <cache>/<digest>/pools.json                 counts, of usable and of dropped clips
    <cache>/<digest>/video-320x512-train/       rows.arrow  shards.arrow  weights.f32
    <cache>/<digest>/video-320x512-held_out/
"""

from __future__ import annotations

import fcntl
import json
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.filtering import IndexReader, Kind, PoolRows

CATALOG_VERSION = 2
"""Raised by one whenever the same index would give other pools."""
ROWS_PER_BATCH = 65_536
"""Rows of one Arrow batch; all but the last have as many, so a row's batch is a division."""

Split = Literal["train", "held_out"]


@dataclass(slots=True)
class PoolCounts:
    """What became of the clips whose shape is nearest to one size."""

    clips: dict[str, int] = field(default_factory=lambda: {"train": 0, "held_out": 0})
    """By split."""
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "held_out": 0.0})
    """Length of them."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    rates: Counter[str] = field(default_factory=Counter)
    """Of clips to train on, by the frames that a sample takes of a second of film."""

    @property
    def total(self) -> int:
        """Of all."""
        return sum(self.clips.values()) + self.dropped.total()


def pool_key(kind: Kind, size_px: tuple[int, int]) -> str:
    """Name of a pool within its source."""
    return f"{kind}-{size_px[0]}x{size_px[1]}"


class Pool:
    """Rows of one pool and split, through memory maps.

    Args:
        folder: of the pool.
        source: number of its source in the run.
        kind: 'video' or 'image'.
        size_px: H and W.
    """

    def __init__(self, folder: Path, *, source: int, kind: Kind, size_px: tuple[int, int]) -> None:
        self.name = f"{source}-{pool_key(kind, size_px)}"
        self.source = source
        self.kind = kind
        self.size_px = size_px
        self._rows = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow")))
        self._batches: dict[int, pa.RecordBatch] = {}
        with pa.memory_map(str(folder / "shards.arrow")) as file:
            shards = pa.ipc.open_file(file).read_all()
        self._shard_names = shards["shard"]
        self.shard_sizes: NDArray[np.int64] = shards["num_rows"].to_numpy().copy()
        self.num_rows = int(self.shard_sizes.sum())
        self._weights = np.memmap(folder / "weights.f32", np.float32, "r")
        self.max_weight = float(json.loads((folder / "weights.json").read_text())["max"])
        self.equal_weights = bool(json.loads((folder / "weights.json").read_text())["equal"])

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """`sampling_weight` of some rows."""
        return np.asarray(self._weights[rows])

    def row(self, number: int) -> dict[str, Any]:
        """Columns of one row, `shard` as its name."""
        batch, place = divmod(int(number), ROWS_PER_BATCH)
        if batch not in self._batches:
            self._batches[batch] = self._rows.get_batch(batch)
        (row,) = self._batches[batch].slice(place, 1).to_pylist()
        return row | {"shard": self._shard_names[row["shard"]].as_py()}

    def clip_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """`clip_id` of some rows."""
        return [self.row(number)["clip_id"] for number in rows]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Pools of one source under one set of sizes."""

    folder: Path
    """Where they lie."""
    source: int
    """Number of the source in the run."""
    counts: dict[tuple[Kind, tuple[int, int]], PoolCounts]
    """By kind and size; also where no clip is usable."""

    def pools(self, split: Split, kind: Kind) -> Iterator[Pool]:
        """Pools that hold at least one clip, in the order of the sizes."""
        for (own, size_px), counts in self.counts.items():
            if own == kind and counts.clips[split]:
                folder = self.folder / f"{pool_key(kind, size_px)}-{split}"
                yield Pool(folder, source=self.source, kind=kind, size_px=size_px)


def open_catalog(index: IndexReader, *, source: int, cache: Path) -> Catalog:
    """The catalog of one source, made if it is not in the cache yet.

    Processes that want the same one at the same time wait for the first. It is there whole or not
    at all: its folder is written beside its place and renamed.
    """
    folder = cache / f"catalog-{CATALOG_VERSION}-{index.digest}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets it go with the process
            if not folder.is_dir():
                _build(index, folder)
    content = json.loads((folder / "pools.json").read_text())
    counts = {
        (entry["kind"], tuple(entry["size_px"])): PoolCounts(
            clips=entry["clips"],
            seconds=entry["seconds"],
            dropped=Counter(entry["dropped"]),
            rates=Counter(entry["rates"]),
        )
        for entry in content
    }
    return Catalog(folder=folder, source=source, counts=counts)


def _build(index: IndexReader, folder: Path) -> None:
    scratch = folder.parent / f".writing-{uuid.uuid4().hex}"
    counts: dict[tuple[Kind, tuple[int, int]], PoolCounts] = defaultdict(PoolCounts)
    writers: dict[str, _PoolWriter] = {}
    try:
        scratch.mkdir()
        for kind, size_px in index.pools:
            counts[kind, size_px] = PoolCounts()
        for dealt in index.deal():
            own = counts[dealt.kind, dealt.size_px]
            _add(dealt, own, writers, scratch)
            if dealt.kind == "video":
                own.rates.update(f"{rate:.4g}" for rate in index.rates(dealt.train))
        for writer in writers.values():
            writer.close()
        entries = [
            {
                "kind": kind,
                "size_px": size_px,
                "clips": own.clips,
                "seconds": own.seconds,
                "dropped": own.dropped,
                "rates": own.rates,
            }
            for (kind, size_px), own in counts.items()
        ]
        (scratch / "pools.json").write_text(json.dumps(entries, indent=1))
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _add(
    dealt: PoolRows, counts: PoolCounts, writers: dict[str, _PoolWriter], scratch: Path
) -> None:
    counts.dropped.update(dealt.dropped)
    splits: tuple[Split, Split] = ("train", "held_out")
    for split in splits:
        rows = dealt.held_out if split == "held_out" else dealt.train
        if not rows.num_rows:
            continue
        counts.clips[split] += rows.num_rows
        counts.seconds[split] += float(np.sum(rows["duration_s"].to_numpy(), dtype=np.float64))
        name = f"{pool_key(dealt.kind, dealt.size_px)}-{split}"
        if name not in writers:
            writers[name] = _PoolWriter(scratch / name)
        writers[name].add(rows)


class _PoolWriter:
    """Writes one pool's files, holding one Arrow batch of rows."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._held: list[pa.Table] = []
        self._num_held = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._weights = (folder / "weights.f32").open("wb")
        self._least, self._most = np.inf, 0.0
        self._shards: list[str] = []
        self._sizes: list[int] = []

    def add(self, rows: pa.Table) -> None:
        """Append rows; those of a shard must follow each other."""
        weights = rows["sampling_weight"].to_numpy().astype(np.float32)
        self._weights.write(weights.tobytes())
        self._least = min(self._least, float(weights.min()))
        self._most = max(self._most, float(weights.max()))
        place = rows.schema.get_field_index("shard")
        numbers = self._number_shards(rows["shard"])
        self._held.append(
            rows.drop_columns(["sampling_weight"]).set_column(place, "shard", numbers)
        )
        self._num_held += rows.num_rows
        while self._num_held >= ROWS_PER_BATCH:
            self._flush(ROWS_PER_BATCH)

    def _number_shards(self, shards: pa.ChunkedArray) -> pa.Array:
        encoded = shards.combine_chunks().dictionary_encode()
        own = np.empty(len(encoded.dictionary), np.int32)
        lengths = np.bincount(encoded.indices.to_numpy(), minlength=len(own))
        for code, name in enumerate(encoded.dictionary.to_pylist()):
            if not self._shards or self._shards[-1] != name:
                self._shards.append(name)
                self._sizes.append(0)
            own[code] = len(self._shards) - 1
            self._sizes[-1] += int(lengths[code])
        return pa.array(own[encoded.indices.to_numpy()])

    def _flush(self, num_rows: int) -> None:
        table = pa.concat_tables(self._held)
        (batch,) = table.slice(0, num_rows).combine_chunks().to_batches()
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._folder / "rows.arrow"), batch.schema)
        self._writer.write_batch(batch)
        self._held = [table.slice(num_rows)]
        self._num_held -= num_rows

    def close(self) -> None:
        """Write what is left, and the shards."""
        if self._num_held:
            self._flush(self._num_held)
        assert self._writer is not None, "a pool is begun with its first row"
        self._writer.close()
        self._weights.close()
        shards = pa.table({"shard": self._shards, "num_rows": pa.array(self._sizes, pa.int64())})
        with pa.ipc.new_file(str(self._folder / "shards.arrow"), shards.schema) as file:
            file.write_table(shards)
        weights = {"max": self._most, "equal": self._least == self._most}
        (self._folder / "weights.json").write_text(json.dumps(weights))
