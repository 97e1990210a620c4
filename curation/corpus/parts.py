"""One layer of one part as a table, and layers laid side by side."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.schema import LAYER_OF, SOURCE_COLUMNS
from curation.corpus.store import Store
from curation.errors import MissingColumn, TornPart

LAYER_METADATA = b"lavie.layer"


def to_parquet(
    table: pa.Table,
    *,
    made_by: Mapping[str, Any] | None = None,
    rows_per_group: int | None = None,
) -> bytes:
    """The bytes of a Parquet file; the same table gives the same bytes.

    Args:
        table: columns with their docs as field metadata.
        made_by: name, version, settings and weight digests of the station, kept in the file.
        rows_per_group: the least that a reader of single rows must take; pyarrow's default if not given.
    """
    metadata = dict(table.schema.metadata or {})
    if made_by is not None:
        metadata[LAYER_METADATA] = json.dumps(made_by, sort_keys=True).encode()
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        row_group_size=rows_per_group,
        compression="zstd",
        write_page_checksum=True,
    )
    return buffer.getvalue()


def read_table(store: Store, name: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One Parquet file of the corpus.

    Raises:
        FileNotFoundError: if it was never committed.
        TornPart: if its bytes are damaged.
    """
    data = pa.BufferReader(store.read(name))
    try:
        return pq.read_table(
            data,
            columns=None if columns is None else list(columns),
            page_checksum_verification=True,
        )
    except (pa.ArrowInvalid, OSError) as error:  # OSError: the reader's word for a bad page
        raise TornPart(f"{store.root}/{name}: not a whole Parquet file ({error})") from error


def read_clips(
    store: Store, layers: Mapping[str, str], part: int, columns: Iterable[str]
) -> pa.Table:
    """Clips of one part with the columns asked for, from as many layers as hold them.

    Args:
        store: the corpus.
        layers: layer name -> layer id (`corpus.json` has the current ones).
        part: number of the part.
        columns: names of clip or source columns; `clip_id` always comes first.

    Returns:
        One row a scene, in the order of the scenes layer.

    Raises:
        MissingColumn: if no layer of ``layers`` holds one of the columns.
        TornPart: if a layer's rows do not line up with the scenes layer's.
    """
    wanted = [name for name in dict.fromkeys(columns) if name != "clip_id"]
    check_columns(wanted, layers)
    scene_columns = [n for n in wanted if LAYER_OF[n] == "scenes"]
    read = dict.fromkeys(("clip_id", "source_row", *scene_columns))
    scenes = read_table(store, layout.layer(layers["scenes"], part), read)
    found = {"clip_id": scenes["clip_id"]} | {name: scenes[name] for name in scene_columns}
    found |= _source_columns(store, layers, part, wanted, scenes["source_row"])
    for layer_name in dict.fromkeys(LAYER_OF[name] for name in wanted):
        if layer_name in ("scenes", "sources", "probe"):
            continue
        names = [n for n in wanted if LAYER_OF[n] == layer_name]
        path = layout.layer(layers[layer_name], part)
        table = read_table(store, path, ["clip_id", *names])
        if not table["clip_id"].equals(scenes["clip_id"]):
            raise TornPart(f"{store.root}/{path}: its rows are not those of the scenes layer")
        found |= {name: table[name] for name in names}
    return pa.table({name: found[name] for name in ("clip_id", *wanted)})


def _source_columns(
    store: Store, layers: Mapping[str, str], part: int, wanted: list[str], rows: pa.ChunkedArray
) -> dict[str, pa.ChunkedArray]:
    """Columns of the clips' sources, one value a clip."""
    found: dict[str, pa.ChunkedArray] = {}
    for layer_name, path in (
        ("sources", layout.sources(part)),
        ("probe", layout.layer(layers["probe"], part) if "probe" in layers else ""),
    ):
        names = [n for n in wanted if n in SOURCE_COLUMNS and LAYER_OF[n] == layer_name]
        if names:
            table = read_table(store, path, names)
            found |= {name: pc.take(table[name], rows) for name in names}
    return found


def check_columns(columns: Iterable[str], layers: Mapping[str, str]) -> None:
    """Raise `MissingColumn` for a column that no layer of ``layers`` holds."""
    for name in columns:
        if name not in LAYER_OF:
            raise MissingColumn(f"no column is called {name!r}; docs/corpus.md lists them all")
        if LAYER_OF[name] != "sources" and LAYER_OF[name] not in layers:
            raise MissingColumn(
                f"column {name!r} is added by the station {LAYER_OF[name]!r}, which this corpus was "
                f"not given (it has {', '.join(sorted(layers))}); run `lavie curate` with it"
            )
