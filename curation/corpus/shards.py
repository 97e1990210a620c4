"""Read exported shards: the manifest, the index, single samples; and check that no byte changed.

A reader that wants batches in order uses `webdataset` or `datasets` on the tars (docs/shards.md).
This module is for what they do not offer: taking one clip out of a tar by its bytes, and proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.manifest import canonical_json, seal_of
from curation.corpus.schema import SHARD_INDEX, SHARD_ROWS, Column
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart

FORMAT_VERSION = 2
"""Of the tars, the index and the manifest; 1 knew a single generation."""
KEY_GRAMMAR = r"[A-Za-z0-9_-]+"
"""What a sample's key may be: no dot (it would begin the extension), no slash, no space."""
GENERATION, STILL_SELECTED = SHARD_INDEX[-2:]
SHARD_COLUMNS = tuple(column.name for column in SHARD_INDEX)
LATER_COLUMNS = tuple(
    column
    for column in SHARD_ROWS
    if column.name
    in ("caption_engine", "split", "facts_digest", "facts_generation", "tried_before")
)
"""Columns of rows that shards of earlier programs lack; their values are null there."""
STOPGAP_ENGINE = "tags"
"""The `caption_engine` of a sentence that was made of tags: it stands in until a person or a model
writes one, and is not trained on unasked."""
UNKNOWN_ENGINE = "unknown"
"""In `count_engines`: clips with a caption whose shard does not say who wrote it."""
_PIECE_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip as it lies in a shard."""

    key: str
    """Name in the tar, without extension."""
    extension: str
    """Of the media: 'mp4' or 'jpg'."""
    media: bytes
    """The video or image file."""
    facts: dict[str, Any]
    """The .json: columns of the clip (docs/shards.md)."""
    caption: str
    """The .txt; empty where there is no caption."""


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's canonical JSON without its own "digest"."""
    return seal_of(manifest)


def read_manifest(store: Store, selection: str) -> dict[str, Any]:
    """manifest.json of a selection's shards, checked against its own digest.

    One of format 1 is given with a list of its one generation.

    Raises:
        CorpusError: if the export was not finished, or is of a later format.
        TornPart: if its bytes are not those that were written.
    """
    name = layout.shard_manifest(selection)
    try:
        data = store.read(name)
        content: dict[str, Any] = json.loads(data)
    except FileNotFoundError as error:
        raise CorpusError(
            f"{store.root} holds no finished shards of selection {selection!r}; "
            f"`lavie export` makes them"
        ) from error
    except ValueError as error:
        raise TornPart(f"{store.root}/{name}: not JSON ({error})") from error
    if canonical_json(content) != data or content.get("digest") != manifest_digest(content):
        raise TornPart(f"{store.root}/{name}: its bytes are not those that were written")
    if content["format_version"] not in (1, FORMAT_VERSION):
        raise CorpusError(
            f"{store.root}/{name} has format version {content['format_version']}, "
            f"this program reads up to {FORMAT_VERSION}"
        )
    return content if content["format_version"] == FORMAT_VERSION else _with_generation(content)


def _with_generation(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest of format 1 as a later one: what it says of itself is its only generation."""
    of_one = ("export", "selection_sha256", "num_clips", "num_failed", "num_shards")
    generation = {"generation": 1} | {name: content.get(name) for name in of_one}
    return content | {
        "contents": content["digest"],
        "generations": [generation],
        "num_no_longer_selected": 0,
    }


def read_index(
    store: Store,
    selection: str,
    columns: Iterable[str] | None = None,
    *,
    failed: bool = False,
    dropped: bool = False,
) -> pa.Table:
    """Rows of index.parquet in the order of the shards.

    Args:
        store: the corpus.
        selection: name of the selection.
        columns: names of `SHARD_INDEX`; None for all.
        failed: also the clips that could not be cut, whose `shard` is null.
        dropped: also the clips that the selection no longer keeps; they stay in their tars.

    Raises:
        CorpusError: if the export was not finished.
        TornPart: if the file is damaged.
    """
    name = layout.shard_index(selection)
    wanted = list(SHARD_COLUMNS if columns is None else columns)
    try:
        with pq.ParquetFile(
            store.path(name), filesystem=store.filesystem, page_checksum_verification=True
        ) as file:
            there = set(file.schema_arrow.names)
            read = dict.fromkeys([*wanted, "shard", "still_selected"])
            table = with_growth(file.read(columns=[name for name in read if name in there]))
    except FileNotFoundError as error:
        raise CorpusError(
            f"{store.root} holds no finished shards of selection {selection!r}; "
            f"`lavie export` makes them"
        ) from error
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TornPart(f"{store.root}/{name}: not a whole Parquet file ({error})") from error
    if not failed:
        table = table.filter(pc.is_valid(table["shard"]))
    if not dropped:
        table = table.filter(table["still_selected"])
    return table.select(wanted)


def with_later_columns(rows: pa.Table, columns: Iterable[Column] = SHARD_ROWS) -> pa.Table:
    """Rows of a shard in the columns of today, null where an earlier program wrote none."""
    columns = tuple(columns)
    for column in LATER_COLUMNS:
        if column.name not in rows.column_names:
            rows = rows.append_column(column.field, pa.nulls(rows.num_rows, column.type))
    return rows.select([column.name for column in columns])


def count_engines(rows: pa.Table) -> dict[str, int]:
    """`caption_engine` -> clips of an index that were cut and are selected and captioned.

    Clips whose engine is not on record are `UNKNOWN_ENGINE`; those without a caption are not counted.

    Args:
        rows: `shard`, `still_selected`, `caption` and `caption_engine`.
    """
    has_caption = pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(rows["caption"], "")), "")
    counted = pc.and_(pc.is_valid(rows["shard"]), pc.and_(rows["still_selected"], has_caption))
    engines = pc.fill_null(rows.filter(counted)["caption_engine"], UNKNOWN_ENGINE)
    counts = pc.value_counts(engines).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: e["values"])}


def with_growth(index: pa.Table) -> pa.Table:
    """Rows of an index with the columns that one of an earlier program lacks.

    In one of format 1 all clips are of the first generation and selected; who wrote a caption and the
    digest of facts are null.
    """
    for column in LATER_COLUMNS:
        if column.name not in index.column_names:
            index = index.append_column(column.field, pa.nulls(index.num_rows, column.type))
    for column, value in ((GENERATION, 1), (STILL_SELECTED, True)):
        if column.name not in index.column_names:
            values = pa.repeat(pa.scalar(value, column.type), index.num_rows)
            index = index.append_column(column.field, values)
    place = index.column_names.index(STILL_SELECTED.name)
    known = pc.fill_null(index[STILL_SELECTED.name], True)
    return index.set_column(place, STILL_SELECTED.field, known)


def read_sample(store: Store, selection: str, row: Mapping[str, Any]) -> Sample:
    """One sample by the bytes that its index row names: one request, whatever the size of the tar.

    Args:
        store: the corpus.
        selection: name of the selection.
        row: shard, key, media_name, and the offset and size columns.
    """
    parts = ("media", "json", "txt")
    start = min(row[f"{part}_offset"] for part in parts)
    end = max(row[f"{part}_offset"] + row[f"{part}_size"] for part in parts)
    data = store.read_range(
        f"{layout.shards(selection)}/{row['shard']}", offset=start, size_bytes=end - start
    )

    def member(part: str) -> bytes:
        begin = row[f"{part}_offset"] - start
        return data[begin : begin + row[f"{part}_size"]]

    return Sample(
        key=row["key"],
        extension=row["media_name"].rpartition(".")[2],
        media=member("media"),
        facts=json.loads(member("json")),
        caption=member("txt").decode(),
    )


def verify_shards(store: Store, selection: str) -> Iterator[str]:
    """Read every byte of a selection's shards again; yields one sentence for each file at fault.

    Files that the manifest does not name are not looked at: readers should not either.

    Raises:
        CorpusError: if the export was not finished.
    """
    try:
        manifest = read_manifest(store, selection)
    except TornPart as error:
        yield str(error)
        return
    for name, expected in sorted(manifest["files"].items()):
        path = f"{layout.shards(selection)}/{name}"
        fault = file_fault(store, path, expected)
        if fault is not None:
            yield f"{store.root}/{path}: {fault}"


def file_fault(store: Store, name: str, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, if it is not as a manifest's entry says; reads all of it in pieces."""
    info = store.filesystem.get_file_info(store.path(name))
    if info.type != pafs.FileType.File:
        return "missing"
    if info.size != expected["size_bytes"]:
        return f"{info.size} bytes, the manifest says {expected['size_bytes']}"
    digest = hashlib.sha256()
    for offset in range(0, info.size, _PIECE_BYTES):
        size_bytes = min(_PIECE_BYTES, info.size - offset)
        digest.update(store.read_range(name, offset=offset, size_bytes=size_bytes))
    if digest.hexdigest() != expected["sha256"]:
        return "sha256 is not the manifest's, its bytes have changed"
    return None
