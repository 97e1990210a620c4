"""A corpus before its first unit: the list of sources dealt into parts, corpus.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.schema import SOURCES, schema
from curation.corpus.store import Store
from curation.errors import SourceChanged

logger = logging.getLogger(__name__)

MAX_NAMED = 10
"""Sources that a message names."""


def existing(store: Store) -> CorpusInfo | None:
    """What corpus.json says, or None where there is none yet."""
    return read_corpus(store) if store.exists(layout.CORPUS) else None


def deal_sources(store: Store, listed: pa.Table, *, sources_per_part: int) -> int:
    """Write the sources into parts; returns how many parts the corpus has.

    Sources that the corpus has already stay in their parts; new ones, in the order of the list, go into new
    parts after the last.

    Args:
        store: the corpus.
        listed: rows of `schema(SOURCES)`, sorted, each uri once.
        sources_per_part: the most sources that one part gets.

    Raises:
        SourceChanged: if a listed file has another size than the corpus has curated.
    """
    info = existing(store)
    num_parts = info.num_parts if info else 0
    if num_parts:
        known = pa.concat_tables(
            read_table(store, layout.sources(part), ["uri", "size_bytes"])
            for part in range(num_parts)
        )
        _check_unchanged(known, listed)
        is_new = pc.invert(pc.is_in(listed["uri"], value_set=known["uri"].combine_chunks()))
        listed = listed.filter(is_new)
        if listed.num_rows:
            logger.info("%d new sources go into new parts", listed.num_rows)
    for offset in range(0, listed.num_rows, sources_per_part):
        part = listed.slice(offset, sources_per_part).combine_chunks().cast(schema(SOURCES))
        store.write(layout.sources(num_parts), to_parquet(part))
        num_parts += 1
    return num_parts


def _check_unchanged(known: pa.Table, listed: pa.Table) -> None:
    both = known.join(listed.select(["uri", "size_bytes"]), "uri", right_suffix="_now")
    differs = pc.not_equal(both["size_bytes"], both["size_bytes_now"])
    changed = both.filter(pc.fill_null(differs, False))
    if changed.num_rows:
        named = [
            f"  {row['uri']}: {row['size_bytes']} bytes then, {row['size_bytes_now']} now"
            for row in changed.sort_by("uri").slice(0, MAX_NAMED).to_pylist()
        ]
        if changed.num_rows > MAX_NAMED:
            named.append(f"  and {changed.num_rows - MAX_NAMED} more")
        raise SourceChanged(
            f"{changed.num_rows} sources are not the files that were curated:\n"
            + "\n".join(named)
            + "\nGive each new file another name, so that it becomes a source of its own, or put the "
            "old one back; or curate into a new corpus"
        )


def record(
    store: Store,
    *,
    num_parts: int,
    layers: Mapping[str, str],
    settings: Mapping[str, Any],
    command: str,
) -> CorpusInfo:
    """Write corpus.json: the layers of this run become the current ones.

    Layers of earlier runs stay current where they still line up: where the scenes are the same.
    """
    info = existing(store)
    kept = info.layers if info and info.layers.get("scenes") == layers["scenes"] else {}
    new = CorpusInfo(
        num_parts=num_parts,
        layers={**kept, **layers},
        settings=dict(settings),
        created_by=command,
    )
    new.write(store)
    return new
