"""Films that were renamed or moved since they were curated, found again by their bytes.

A corpus knows a source by the sha256 of its bytes. Where its file is not at its address any more, the same
bytes may lie at the address of another source, which a later list named, or in a folder that the user names
now. What is cut or decoded of it is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_sources
from curation.corpus.scratch import scratch_folder
from curation.corpus.store import Store, is_remote
from curation.errors import BadSource, CorpusError, UsageError
from curation.sources import fetched, list_sources, local_path

_SCHEMA = pa.schema(
    [("uri", pa.string()), ("size_bytes", pa.int64()), ("source_sha256", pa.string())]
)
_LARGEST = 2**63 - 1


def moved_sources(store: Store, info: CorpusInfo, moved_to: Sequence[str] = ()) -> dict[str, str]:
    """Address of each source whose file is not there any more -> where the same bytes lie.

    Only local files are looked for; those of which no other place is known are not among them.

    Args:
        store: the corpus.
        info: its contents.
        moved_to: folders, files or lists to look through; files are read whole that may be one of them.

    Raises:
        UsageError: if one of ``moved_to`` names nothing.
    """
    sources = _decoded_sources(store, info)
    counts = pc.value_counts(sources["source_sha256"])
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    is_shared = pc.is_in(sources["source_sha256"], value_set=shared)
    places: dict[str, str] = {}
    lost: list[dict[str, Any]] = []
    for row in (sources if moved_to else sources.filter(is_shared)).to_pylist():
        if _is_gone(row):
            lost.append(row)
        else:
            places.setdefault(row["source_sha256"], row["uri"])
    missing = [row for row in lost if row["source_sha256"] not in places]
    if moved_to:
        places |= _found(moved_to, missing)
    return {
        row["uri"]: places[row["source_sha256"]] for row in lost if row["source_sha256"] in places
    }


def _decoded_sources(store: Store, info: CorpusInfo) -> pa.Table:
    """Sources that were decoded; those of parts that lack a layer or are damaged are passed by."""
    tables = [_SCHEMA.empty_table()]
    for part in range(info.num_parts):
        with suppress(CorpusError):
            table = read_sources(store, info.layers, part, _SCHEMA.names)
            tables.append(table.filter(pc.is_valid(table["source_sha256"])).cast(_SCHEMA))
    return pa.concat_tables(tables)


def _is_gone(source: Mapping[str, Any]) -> bool:
    """Whether a local file is not there, or is another by its length."""
    if is_remote(source["uri"]):
        return False
    try:
        size_bytes = os.lstat(local_path(source["uri"])).st_size
    except OSError:
        return True
    return source["size_bytes"] not in (None, size_bytes)


def _found(moved_to: Sequence[str], missing: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Digest -> address of the files that have the bytes of missing sources."""
    digests = {row["source_sha256"] for row in missing}
    sizes = {row["size_bytes"] for row in missing}
    found: dict[str, str] = {}
    for uri, size_bytes in _listed(moved_to) if missing else ():
        if None in sizes or size_bytes is None or size_bytes in sizes:
            digest = _digest(uri)
            if digest is not None and digest in digests:
                found.setdefault(digest, uri)
    return found


def _listed(moved_to: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    try:
        table = list_sources(moved_to)
    except UsageError as error:
        raise UsageError(f"--moved-to: {str(error).removeprefix('sources: ')}") from error
    for row in table.filter(pc.is_null(table["listing_reject"])).to_pylist():
        yield row["uri"], row["size_bytes"]


def _digest(uri: str) -> str | None:
    with (
        scratch_folder("lavie-moved-") as scratch,
        suppress(BadSource),
        fetched(uri, max_bytes=_LARGEST, scratch=scratch) as file,
    ):
        return file.sha256
    return None
