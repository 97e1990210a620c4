"""Which clips the shards of a selection hold already: they go before all others, so that tars stay."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus.clip_ids import id_keys
from curation.corpus.generations import exported_ids
from curation.corpus.store import Store
from curation.select.scan import Corpus, Extent


def ids_of(corpus: Corpus, positions: NDArray[np.int64], extent: Extent) -> pa.ChunkedArray:
    """Ids of clips whose positions rise."""
    first, edges = extent.first_clip, np.searchsorted(positions, extent.first_clip)

    def read(part: int) -> pa.ChunkedArray:
        rows = positions[edges[part] : edges[part + 1]] - first[part]
        return corpus.read_columns(part, ["clip_id"])["clip_id"].take(pa.array(rows))

    wanted = np.flatnonzero(np.diff(edges)).tolist()
    ids = [chunk for _, ids in corpus.in_order(read, wanted) for chunk in ids.chunks]
    return pa.chunked_array(ids, pa.string())


def marked_exported(members: pa.Table, store: Store, name: str) -> pa.Table:
    """The table with a column `is_exported`: whether the selection's shards hold the clip."""
    is_exported = pa.array(np.zeros(members.num_rows, dtype=bool))
    for ids in exported_ids(store, name):
        # Of the few members the table to look up in is made, not of all that was ever exported.
        found = ids.filter(pc.is_in(ids, value_set=members["clip_id"].combine_chunks()))
        here = pc.is_in(members["clip_id"], value_set=found.combine_chunks())
        is_exported = pc.or_(is_exported, here)
    return members.append_column("is_exported", is_exported)


def exported_positions(
    corpus: Corpus, name: str, positions: NDArray[np.int64], extent: Extent
) -> NDArray[np.int64]:
    """Of many clips, whose positions rise, those that the selection's shards hold."""
    keys = [id_keys(ids) for ids in exported_ids(corpus.store, name)]
    if not keys:
        return np.empty(0, np.int64)
    known = np.unique(np.concatenate(keys))
    return positions[np.isin(id_keys(ids_of(corpus, positions, extent)), known)]
