"""Several rows that name one source become one: nothing that they say is lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus.schema import SOURCES, schema

_CAPTIONS = "given_captions"


def once_each(tables: list[pa.Table]) -> pa.Table:
    """Rows of all tables sorted by URI, each source once.

    Of each text the first that a row gives stays, earlier tables first; all captions stay, each once,
    in the order of the rows.
    """
    rows = pa.concat_tables(tables)
    rows = rows.append_column("order", pa.array(np.arange(rows.num_rows)))
    rows = rows.sort_by([("uri", "ascending"), ("order", "ascending")]).drop_columns("order")
    rows = rows.combine_chunks()
    uris = rows["uri"].combine_chunks()
    if len(uris) > 1:
        is_same = pc.equal(uris[1:], uris[:-1]).to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(np.concatenate([[True], ~is_same]))
        if len(starts) < len(uris):
            rows = _merged(rows, starts)
    captions = rows[_CAPTIONS].combine_chunks()
    has_one = pc.greater(pc.list_value_length(captions), 0)
    first = pc.if_else(has_one, captions.offsets[:-1], pa.scalar(None, pa.int32()))
    place = rows.schema.get_field_index("given_caption")
    rows = rows.set_column(place, "given_caption", captions.values.take(first))
    return rows.cast(schema(SOURCES)).combine_chunks()


def _merged(rows: pa.Table, starts: np.ndarray) -> pa.Table:
    """One row for each run of rows that begins at ``starts``."""
    columns = {
        name: _captions(column.combine_chunks(), starts)
        if name == _CAPTIONS
        else _first_valid(column.combine_chunks(), starts)
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    }
    return pa.table(columns, schema=rows.schema)


def _first_valid(column: pa.Array, starts: np.ndarray) -> pa.Array:
    """The first value of each run that is not null."""
    num_rows = len(column)
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    places = np.where(is_valid, np.arange(num_rows), num_rows)
    first = np.minimum.reduceat(places, starts)
    return column.take(pa.array(first, mask=first == num_rows))


def _captions(column: pa.Array, starts: np.ndarray) -> pa.Array:
    """All captions of each run, each once, in their order."""
    lists = column.to_pylist()
    bounds = zip(starts, [*starts[1:], len(lists)], strict=True)
    merged = [
        list(dict.fromkeys(text for one in lists[begin:end] for text in one or ()))
        for begin, end in bounds
    ]
    return pa.array(merged, column.type)
