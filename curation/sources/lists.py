"""Lists of sources: CSV, JSON lines or Parquet with a column 'uri' and optional texts."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.json
import pyarrow.parquet as pq

from curation.corpus.store import is_remote
from curation.errors import NothingToDo
from curation.sources.uris import WITH_CREDENTIALS, local_path, redacted, source_rows

logger = logging.getLogger(__name__)

LIST_SUFFIXES = frozenset((".csv", ".jsonl", ".ndjson", ".parquet"))

LIST_COLUMNS = {
    "title": "title",
    "description": "description",
    "category": "given_category",
    "author": "author",
    "licence": "licence",
    "license": "licence",
    "caption": "given_caption",
}
"""Column of a list -> column of the sources layer; 'uri' is the one that a list must have."""


def read_list(spec: str) -> pa.Table:
    """Rows of one list; columns that are not known are left out, with one line in the log."""
    path = spec if is_remote(spec) else os.fspath(local_path(spec).resolve())
    try:
        table = _open_list(path)
    except FileNotFoundError as error:
        raise NothingToDo(f"there is no list {redacted(spec)!r}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"list {redacted(spec)!r} cannot be read: {error}") from error
    names = table.column_names
    if len(set(names)) < len(names):
        raise ValueError(f"list {redacted(spec)!r} has two columns of one name: {', '.join(names)}")
    if "uri" not in names:
        raise ValueError(f"list {redacted(spec)!r} has no column 'uri', only {', '.join(names)}")
    unknown = [n for n in names if n not in LIST_COLUMNS and n != "uri"]
    if unknown:
        logger.warning("%s: columns not used: %s", redacted(spec), ", ".join(unknown))
    uris = _absolute(_texts(table["uri"]), folder=path.rsplit("/", 1)[0])
    _check_listed(uris, spec)
    given = {to: _texts(table[name]) for name, to in LIST_COLUMNS.items() if name in names}
    return source_rows(uris, given=given)


def _open_list(path: str) -> pa.Table:
    if is_remote(path):
        filesystem, place = pafs.FileSystem.from_uri(path)
    else:
        filesystem, place = pafs.LocalFileSystem(), path
    suffix = Path(place).suffix.lower()
    with filesystem.open_input_file(place) as file:
        if suffix == ".parquet":
            names = pq.read_schema(file).names
            wanted = [n for n in names if n == "uri" or n in LIST_COLUMNS]
            table = pq.read_table(file, columns=wanted)
            for name in names:  # kept by name only, so that the log can tell what is not used
                if name not in wanted:
                    table = table.append_column(name, pa.nulls(table.num_rows))
            return table
        if suffix == ".csv":
            types = dict.fromkeys(("uri", *LIST_COLUMNS), pa.string())
            convert = pyarrow.csv.ConvertOptions(
                column_types=types,
                strings_can_be_null=True,
                null_values=[""],  # a film may be called "null" or "NA"
            )
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            return pyarrow.csv.read_csv(file, parse_options=parse, convert_options=convert)
        return pyarrow.json.read_json(file)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """A column as text without surrounding blanks; empty texts are null."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.string())).combine_chunks()
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _absolute(uris: pa.Array, *, folder: str) -> pa.Array:
    """URIs with relative ones taken from the folder of the list."""
    is_relative = pc.invert(pc.match_substring_regex(uris, r"^(/|[A-Za-z][A-Za-z0-9+.-]*://)"))
    return pc.if_else(is_relative, pc.binary_join_element_wise(folder, uris, "/"), uris)


def _check_listed(uris: pa.Array, spec: str) -> None:
    if not len(uris):
        raise NothingToDo(f"list {redacted(spec)!r} has no rows")
    if uris.null_count:
        row = pc.index(pc.is_null(uris), True).as_py()
        raise ValueError(
            f"list {redacted(spec)!r}: {uris.null_count} rows have no uri, the first is row {row}"
        )
    secret = pc.index(pc.match_substring_regex(uris, WITH_CREDENTIALS), True).as_py()
    if secret >= 0:
        raise ValueError(
            f"list {redacted(spec)!r}: row {secret} carries credentials in its uri; set them in "
            "the environment instead"
        )
