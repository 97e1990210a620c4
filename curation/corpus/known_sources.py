"""The sources of a corpus in one file, so that a run need not read them part by part.

`sources/known-<sha256 of the file>.parquet` has a row a part: the digest that the part had on record when
the row was made, and address and length of its sources. A row whose digest is no longer that on record
says nothing, and the part is read; so is every part where the file is gone or has other bytes than
its name says. Nothing else is told by it: it can be deleted at any time, and is made anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.ledger import READING_THREADS, Ledger
from curation.corpus.parts import in_order, read_table, to_parquet
from curation.corpus.store import Store

logger = logging.getLogger(__name__)

_ROWS = pa.schema(
    [
        ("part", pa.int32()),
        ("sha256", pa.string()),
        ("uri", pa.list_(pa.string())),
        ("size_bytes", pa.list_(pa.int64())),
        ("told", pa.list_(pa.uint64())),
    ]
)
TEXTS = (
    *("title", "description", "given_category", "author", "licence"),
    *("given_caption", "given_captions"),
)
"""Columns of the sources that a list may give."""
_TOLD_PER_UNTOLD = 20
"""With so many parts told for one that is not, a run reads that one rather than write all anew."""


@dataclass(slots=True)
class KnownSources:
    """Address and length of all sources of a corpus, and which texts a list gave last."""

    table: pa.Table
    """``part``, ``uri``, ``size_bytes``, ``told``: a row a source, in the order of the parts. ``told`` is a
    digest of the texts that a list gave and that the part has taken in; null if that is not known."""
    num_unwritten: int = 0
    """Parts that the file does not tell of."""

    def with_told(self, uris: pa.Array, told: pa.Array) -> KnownSources:
        """With the digests of texts that the corpus has taken in.

        Args:
            uris: of the sources that a list gave texts for.
            told: a digest for each.
        """
        place = pc.index_in(self.table["uri"], value_set=uris)
        now = pc.coalesce(told.take(place), self.table["told"])
        if now.equals(self.table["told"]):
            return self
        column = self.table.schema.get_field_index("told")
        changed = self.table.set_column(column, "told", now)
        return KnownSources(changed, len(changed["part"].unique()))

    def write(self, ledger: Ledger) -> None:
        """Put the file, unless the one that is there tells nearly all; then delete older ones."""
        if self.num_unwritten * _TOLD_PER_UNTOLD <= len(self.table["part"].unique()):
            return
        records = ledger.records(layout.SOURCES)
        part = self.table["part"].to_numpy()
        starts = np.flatnonzero(np.r_[True, part[1:] != part[:-1]]) if len(part) else part
        offsets = pa.array(np.r_[starts, len(part)], pa.int32())
        numbers = part[starts]
        columns = [
            pa.ListArray.from_arrays(offsets, self.table[name].combine_chunks())
            for name in ("uri", "size_bytes", "told")
        ]
        digests = pa.array([records[int(number)].sha256 for number in numbers], pa.string())
        rows = pa.table([pa.array(numbers, pa.int32()), digests, *columns], schema=_ROWS)
        data = to_parquet(rows)
        before = _files(ledger.store)
        name = layout.known_sources(hashlib.sha256(data).hexdigest())
        ledger.store.write(name, data)
        for old in before:
            if old != name:
                ledger.store.delete(old)


def read_known_sources(ledger: Ledger, num_parts: int) -> KnownSources:
    """All sources of a corpus: from the file what it tells, from the parts the rest."""
    records = ledger.records(layout.SOURCES)
    told = {
        part: record.sha256
        for part, record in records.items()
        if part < num_parts and not record.again
    }
    rows = _still_true(_read_file(ledger.store), told)
    flat = [_flat(rows)]
    missing = sorted(set(range(num_parts)) - set(rows["part"].to_pylist()))
    flat += (table for _, table in _read_parts(ledger.store, missing))
    table = pa.concat_tables(flat)
    if missing:
        table = table.take(pc.sort_indices(table["part"])).combine_chunks()
    return KnownSources(table, len(missing))


def dealt(new: pa.Table, part: NDArray[np.int32]) -> pa.Table:
    """Sources that a run adds, as rows of `KnownSources.table`.

    Args:
        new: the sources, in the order in which they are dealt.
        part: number of the part of each.
    """
    return pa.table(
        {
            "part": pa.array(part, pa.int32()),
            "uri": new["uri"],
            "size_bytes": new["size_bytes"],
            "told": text_digests(new),
        }
    )


def forget_known_sources(store: Store) -> None:
    """Delete the file: what it names shall be nowhere, or the parts alone shall speak."""
    for name in _files(store):
        store.delete(name)


def _files(store: Store) -> list[str]:
    return [name for name in store.files(layout.SOURCES) if layout.is_known_sources(name)]


def _read_file(store: Store) -> pa.Table:
    for name in _files(store):
        data = store.read(name)
        if layout.known_sources(hashlib.sha256(data).hexdigest()) == name:
            table = pq.read_table(pa.BufferReader(data))
            if table.schema.equals(_ROWS):
                return table
        logger.warning("%s/%s: not as it was written; the parts are read", store.root, name)
    return _ROWS.empty_table()


def _still_true(rows: pa.Table, on_record: Mapping[int, str]) -> pa.Table:
    """Rows of parts that are what they were."""
    pairs = zip(rows["part"].to_pylist(), rows["sha256"].to_pylist(), strict=True)
    return rows.filter(
        pa.array([on_record.get(part) == sha256 for part, sha256 in pairs], pa.bool_())
    )


def _flat(rows: pa.Table) -> pa.Table:
    lists = rows.combine_chunks()
    uris = lists["uri"]
    return pa.table(
        {
            "part": lists["part"].take(pc.list_parent_indices(uris)),
            "uri": pc.list_flatten(uris),
            "size_bytes": pc.list_flatten(lists["size_bytes"]),
            "told": pc.list_flatten(lists["told"]),
        }
    )


def _read_parts(store: Store, parts: list[int]) -> Iterable[tuple[int, pa.Table]]:
    def read(part: int) -> pa.Table:
        table = read_table(store, layout.sources(part), ["uri", "size_bytes"])
        number = pa.array([part] * table.num_rows, pa.int32())
        return table.add_column(0, "part", number).append_column(
            "told", pa.nulls(table.num_rows, pa.uint64())
        )

    return in_order(read, parts, threads=READING_THREADS)


def text_digests(given: pa.Table) -> pa.Array:
    """A number for all texts of each row: the same texts, the same number."""
    columns = []
    for name in TEXTS:
        texts = given[name]
        if pa.types.is_list(texts.type):
            lengths = pc.list_value_length(texts).cast(pa.string())
            columns += [lengths, pc.binary_join(texts, "\x1f")]
        else:
            columns += [pc.binary_length(texts).cast(pa.string()), texts]
    joined = pc.binary_join_element_wise(
        *columns, "\x1e", null_handling="replace", null_replacement="\x00"
    )
    numbers = (
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in joined.to_pylist()
    )
    return pa.array(list(numbers), pa.uint64())
