"""Which clips of an index can be trained on, at which size, and which of them are held out."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.corpus.shards import STILL_SELECTED, with_growth
from curation.corpus.store import Store
from training.data.pace import Pace
from training.data.random_numbers import key64

Kind = Literal["video", "image"]

MAX_ENLARGEMENT = 2.0
"""How far a clip may be scaled up to cover its size; more would teach blur."""
READ_ROWS = 65_536
"""Rows of the index in hand at once."""

NO_CAPTION, TOO_SHORT, OTHER_RATE, TOO_SMALL = (
    "no caption",
    "too short",
    "frame rate too far off",
    "too small",
)
HELD_OUT = "held out"

INDEX_COLUMNS = (
    "clip_id",
    "shard",
    "media_name",
    "media_offset",
    "media_size",
    "json_offset",
    "json_size",
    "txt_offset",
    "txt_size",
    "caption",
    "num_frames",
    "fps",
    "duration_s",
    "width",
    "height",
    "sampling_weight",
    "split",
    "source_sha256",
)
"""What is read of the rows of shards."""
_NOT_KEPT = (
    *("caption", "caption_engine", "source_sha256", "split", "encode_reject", "media"),
    *("generation", "still_selected"),
)
"""Columns that a catalog needs no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequirements:
    """What a clip must be, and how the held-out ones are found."""

    sizes_px: tuple[tuple[int, int], ...]
    """Height and width of each size, in pixels."""
    pace: Pace
    """Which frames of a clip make a sample."""
    fit: Literal["cover", "patch"]
    """Whether frames are scaled."""
    kinds: tuple[Kind, ...]
    """Kinds of media that the run reads."""
    holdout_share: float
    """Share of the clips that are held out, 0 to 1; the selection's where it has divided them."""
    holdout_by: Literal["split", "source", "clip"]
    """What the selection calls 'val' is held out, or whole films, or single clips."""
    seed: int
    """Seed of the run, which decides what is held out."""


@dataclass(frozen=True, slots=True)
class PoolRows:
    """Some rows of the index that belong to one kind and size."""

    kind: Kind
    size_px: tuple[int, int]
    train: pa.Table
    held_out: pa.Table
    dropped: Counter[str]


def nearest_size(
    width: NDArray[np.float64], height: NDArray[np.float64], sizes_px: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """Number of the size whose shape is nearest to each clip's, int64 ``[N]``.

    Of sizes of one shape it is the largest that the clip covers without being enlarged; the
    smallest if it covers none.
    """
    sizes = np.asarray(sizes_px, np.float64)
    shape = np.abs(
        np.log(width / height)[:, None] - np.log(sizes[:, 1] / sizes[:, 0])[None, :]
    ).round(6)
    covers = (height[:, None] >= sizes[:, 0]) & (width[:, None] >= sizes[:, 1])
    area = np.broadcast_to(sizes.prod(axis=1), covers.shape)
    order = np.lexsort((np.where(covers, -area, area), ~covers, shape), axis=1)
    return np.asarray(order[:, 0], np.int64)


_LOOKED_AT = pa.array(["train", "val"])
"""Splits that a run reads; what is kept for the end, or ties splits together, is not there for it."""


class IndexReader:
    """Reads the index of a selection's shards and deals its rows.

    Args:
        store: the corpus.
        name: of the index in it.
        digest: of what the index belongs to.
        requirements: what a clip must be.
    """

    columns: tuple[str, ...] = INDEX_COLUMNS
    """What is read of the index, and `still_selected`."""

    def __init__(
        self, store: Store, name: str, digest: str, requirements: ClipRequirements
    ) -> None:
        self._store = store
        self._name = name
        self.requirements = requirements
        made = json.dumps([digest, asdict(requirements)], sort_keys=True)
        self.digest = hashlib.sha256(made.encode()).hexdigest()[:24]
        """Of all that the result depends on."""

    @property
    def pools(self) -> list[tuple[Kind, tuple[int, int]]]:
        """Every kind and size that there may be."""
        return [
            (kind, size) for kind in self.requirements.kinds for size in self.requirements.sizes_px
        ]

    def deal(self) -> Iterator[PoolRows]:
        """All rows, in the order of the shards, some thousands at a time."""
        bounds = self._holdout_bounds()
        for table in self._tables():
            kinds, size = self.kinds(table), self.sizes(table)
            for kind in self.requirements.kinds:
                reasons = self.reasons(table, kind, size)
                held_out = (reasons == "") & self._is_held_out(table, bounds.get(kind, 0.0))
                for number, size_px in enumerate(self.requirements.sizes_px):
                    own = (kinds == kind) & (size == number)
                    dropped = Counter(reasons[own & (reasons != "")].tolist())
                    yield PoolRows(
                        kind=kind,
                        size_px=size_px,
                        train=_kept(table, own & (reasons == "") & ~held_out),
                        held_out=_kept(table, own & held_out),
                        dropped=dropped,
                    )

    def _tables(self) -> Iterator[pa.Table]:
        with self._store.filesystem.open_input_file(self._store.path(self._name)) as file:
            index = pq.ParquetFile(file, page_checksum_verification=True)
            there = set(index.schema_arrow.names)
            columns = [name for name in (*self.columns, STILL_SELECTED.name) if name in there]
            for batch in index.iter_batches(READ_ROWS, columns=columns):
                table = with_growth(pa.Table.from_batches([batch]))
                table = self.known(table.filter(table[STILL_SELECTED.name]))
                if self.by_split:
                    table = table.filter(pc.is_in(table["split"], value_set=_LOOKED_AT))
                wanted = {*self.columns, STILL_SELECTED.name}
                table = table.select([name for name in table.column_names if name in wanted])
                if table.num_rows:
                    yield table

    @cached_property
    def by_split(self) -> bool:
        """Whether the selection's splits decide: asked for, and on record in the index."""
        if self.requirements.holdout_by != "split":
            return False
        with self._store.filesystem.open_input_file(self._store.path(self._name)) as file:
            index = pq.ParquetFile(file, page_checksum_verification=True)
            if "split" not in index.schema_arrow.names:
                return False
            batches = index.iter_batches(READ_ROWS, columns=["split"])
            return any(batch["split"].null_count < batch.num_rows for batch in batches)

    def _is_held_out(self, table: pa.Table, bound: float) -> NDArray[np.bool_]:
        if self.by_split:
            is_val = pc.equal(table["split"], "val")
            return np.asarray(is_val.to_numpy(zero_copy_only=False), np.bool_)
        return self._chances(table) < bound

    def known(self, table: pa.Table) -> pa.Table:
        """Rows that count: those of clips that were cut."""
        return table.filter(pc.is_valid(table["shard"]))

    def kinds(self, table: pa.Table) -> NDArray[Any]:
        """Kind of each row's media."""
        is_video = pc.ends_with(table["media_name"], ".mp4").to_numpy(zero_copy_only=False)
        return np.where(is_video, "video", "image")

    def sizes(self, table: pa.Table) -> NDArray[np.int64]:
        """Number of the size that each row belongs to."""
        width, height = _floats(table, "width"), _floats(table, "height")
        return nearest_size(width, height, self.requirements.sizes_px)

    def reasons(self, table: pa.Table, kind: Kind, size: NDArray[np.int64]) -> NDArray[np.str_]:
        """Why a clip cannot be used, or an empty text."""
        needed = self.requirements
        width, height = _floats(table, "width"), _floats(table, "height")
        sizes = np.asarray(needed.sizes_px, np.float64)[size]
        least = sizes if needed.fit == "patch" else sizes / MAX_ENLARGEMENT
        caption = pc.utf8_trim_whitespace(pc.fill_null(table["caption"], ""))
        tests: dict[str, NDArray[np.bool_]] = {
            NO_CAPTION: pc.equal(caption, "").to_numpy(zero_copy_only=False)
        }
        if kind == "video":
            fps = _floats(table, "fps")
            tests[OTHER_RATE] = needed.pace.is_far(fps)
            tests[TOO_SHORT] = needed.pace.is_short(_floats(table, "num_frames"), fps)
        tests[TOO_SMALL] = (height < least[:, 0]) | (width < least[:, 1])
        longest = max(map(len, (NO_CAPTION, TOO_SHORT, OTHER_RATE, TOO_SMALL)))
        reasons = np.full(table.num_rows, "", f"<U{longest}")
        for reason, failed in reversed(tests.items()):
            reasons[failed] = reason
        return reasons

    def rates(self, table: pa.Table) -> NDArray[np.float64]:
        """Frames that a sample takes of a second of each clip, ``[N]``."""
        return self.requirements.pace.rate(_floats(table, "fps"))

    def _chances(self, table: pa.Table) -> NDArray[np.float64]:
        """A number in [0, 1) for each clip, the same for clips that are held out together."""
        by = "clip_id" if self.requirements.holdout_by == "clip" else "source_sha256"
        encoded = table[by].combine_chunks().dictionary_encode()
        keys = [
            key64(self.requirements.seed, f"holdout/{name}")
            for name in encoded.dictionary.to_pylist()
        ]
        chances = np.array(keys, np.uint64) * 2.0**-64
        return np.asarray(chances[encoded.indices.to_numpy()], np.float64)

    def _holdout_bounds(self) -> dict[Kind, float]:
        """Below which number a clip of a kind is held out; at least one clip is, if any shall be."""
        share = self.requirements.holdout_share
        least: dict[Kind, float] = {}
        if share == 0 or self.by_split:
            return {}
        for table in self._tables():
            kinds, chances, size = self.kinds(table), self._chances(table), self.sizes(table)
            for kind in self.requirements.kinds:
                usable = chances[(kinds == kind) & (self.reasons(table, kind, size) == "")]
                least[kind] = min([*usable.tolist(), least.get(kind, math.inf)])
            if all(least.get(kind, 1.0) < share for kind in self.requirements.kinds):
                break  # nothing later changes the bounds
        return {kind: max(share, math.nextafter(own, 1)) for kind, own in least.items() if own < 1}


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Numbers of one column, null as 0."""
    return np.asarray(pc.fill_null(table[name], 0).to_numpy(), np.float64)


def _kept(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    """Rows for the catalog, without nulls."""
    left = [name for name in table.column_names if name not in _NOT_KEPT]
    rows = table.filter(pa.array(mask)).select(left)
    weight = pc.fill_null(rows["sampling_weight"], 1.0)
    place = rows.schema.get_field_index("sampling_weight")
    return rows.set_column(place, "sampling_weight", weight)
