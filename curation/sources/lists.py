"""Lists of sources: CSV, JSON lines or Parquet with a column 'uri' and optional texts.

Lists come out of spreadsheets, scrapers and other people's scripts. One odd row never costs the
others: what is odd in a text stays as it stands, as text; a row whose address cannot be used is a
rejected source with the reason. Only a file that is no list at all is refused.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from curation.corpus.store import is_remote
from curation.corpus.waiting import waiting
from curation.errors import UsageError
from curation.sources.addresses import ROW_MARK, address_columns
from curation.sources.cells import as_list, captions_of, one_line, texts
from curation.sources.json_lines import read_objects
from curation.sources.uris import local_path, opened_store, redacted, source_rows

logger = logging.getLogger(__name__)

LIST_SUFFIXES = frozenset((".csv", ".jsonl", ".ndjson", ".parquet"))

LIST_COLUMNS = {
    "title": "title",
    "description": "description",
    "category": "given_category",
    "author": "author",
    "licence": "licence",
    "license": "licence",
    "caption": "given_captions",
}
"""Column of a list -> column of the sources layer; 'uri' is the one that a list must have."""

_DELIMITERS = (",", ";", "\t", "|")
_HEADER_BYTES = 1024**2
_BLOCK_BYTES = 16 * 1024**2
_ROWS = 65_536
MAX_ERROR_CHARS = 1000


class _NotAList(Exception):
    """Why a file is no list."""


def read_list(spec: str) -> pa.Table:
    """Rows of one list in the sources layer's columns, one for each row of the list, in its order.

    Columns that are not known are left out, with one line in the log. Names of columns are read in any
    case. Bytes that are not UTF-8 are read as Windows-1252, with one line in the log.

    Raises:
        UsageError: there is no such list, it has no row, or is no list: without a column 'uri', or of
            another format.
    """
    path = _path_of(spec)
    counts: dict[str, int] = {}
    try:
        with waiting(redacted(spec)) if is_remote(path) else contextlib.nullcontext():
            tables = list(_tables(path, spec, counts))
    except FileNotFoundError as error:
        raise UsageError(f"there is no list {redacted(spec)!r}") from error
    except (_NotAList, pa.ArrowInvalid, UnicodeError) as error:
        why = one_line(str(error), MAX_ERROR_CHARS)  # which may quote what stands in the file
        raise UsageError(f"list {redacted(spec)!r} cannot be read: {why}") from error
    except OSError as error:
        raise UsageError(
            f"list {redacted(spec)!r} cannot be read: {redacted(str(error))}"
        ) from error
    for what, count in counts.items():
        logger.warning("%s: %d %s", redacted(spec), count, what)
    table = pa.concat_tables(tables) if tables else None
    if table is None or not table.num_rows:
        raise UsageError(f"list {redacted(spec)!r} has no rows")
    return table.combine_chunks()


def row_prefixes(specs: Sequence[str]) -> tuple[str, ...]:
    """What the addresses of rows that cannot be used begin with, of the lists among some sources.

    As the list was typed too: so they began before they had the full path.
    """
    lists = [spec for spec in specs if Path(spec).suffix.lower() in LIST_SUFFIXES]
    names = {name: None for spec in lists for name in (_path_of(spec), spec)}
    return tuple(f"{redacted(name)}{ROW_MARK}" for name in names)


def _path_of(spec: str) -> str:
    return spec if is_remote(spec) else os.fspath(local_path(spec).resolve())


def _tables(path: str, spec: str, counts: dict[str, int]) -> Iterator[pa.Table]:
    """The list in pieces, each as rows of the sources layer."""
    if is_remote(path):
        filesystem, place = opened_store(path)
    else:
        filesystem, place = pafs.LocalFileSystem(), path
    suffix = Path(place).suffix.lower()
    read = {".csv": _csv, ".parquet": _parquet}.get(suffix, _json_lines)
    folder = path.rsplit("/", 1)[0]
    warned = False
    with filesystem.open_input_file(place) as file:
        for names, columns in read(file, counts):
            if not warned:
                _name_unused(names, spec)
                warned = True
            yield _rows(columns, folder=folder, name=redacted(path), counts=counts)


def _name_unused(names: list[str], spec: str) -> None:
    unused = [name for name in names if name.strip().lower() not in (*LIST_COLUMNS, "uri")]
    if unused:
        logger.warning("%s: columns not used: %s", redacted(spec), _shown(unused))


def _shown(names: list[str]) -> str:
    """Names of columns for a person; those of a file that is no list may be anything."""
    shown = ", ".join(one_line(name, 40) for name in names[:20])
    return f"{shown}, and {len(names) - 20} more" if len(names) > 20 else shown


Piece = tuple[list[str], dict[str, Any]]
"""All names of the list as it spells them; and by lower-case name the cells of those that are known,
'row' (numbers from 1) and 'fault' (why a row cannot be read, or null)."""


def _wanted(names: list[str]) -> dict[str, str]:
    """Name as the list spells it -> the known name, for the columns that are read."""
    known = {name: name.strip().lower() for name in names}
    wanted = {name: low for name, low in known.items() if low == "uri" or low in LIST_COLUMNS}
    if len(set(wanted.values())) < len(wanted) or len(set(names)) < len(names):
        raise _NotAList(f"it has two columns of one name: {_shown(names)}")
    if "uri" not in wanted.values():
        raise _NotAList(f"it has no column 'uri', only {_shown(names)}")
    return wanted


def _csv(file: pa.NativeFile, counts: dict[str, int]) -> Iterator[Piece]:
    """A table with a header; separated by commas, semicolons, tabs or bars."""
    start = file.read(_HEADER_BYTES)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    names, delimiter = _header(start.decode(encoding, errors="replace"))
    wanted = _wanted(names)
    file.seek(0)
    try:
        yield from _csv_at_once(file, wanted, names, delimiter, encoding)
    except (_OpenQuote, pa.ArrowInvalid):
        file.seek(0)
        yield from _csv_by_lines(file, wanted, names, delimiter, encoding)


class _OpenQuote(Exception):
    """A quotation mark that nothing closes took the rest of the file into one cell."""


def _header(start: str) -> tuple[list[str], str]:
    """Names of the columns, and what separates them: whatever makes 'uri' one of them."""
    read = {}
    for delimiter in _DELIMITERS:
        lines = csv.reader(io.StringIO(start, newline=None), delimiter=delimiter)
        try:
            read[delimiter] = next(lines, [])
        except csv.Error as error:
            raise _NotAList(f"it is no table ({error})") from error
        if "uri" in [name.strip().lower() for name in read[delimiter]]:
            return read[delimiter], delimiter
    if not any(read.values()):
        raise _NotAList("it is empty")
    raise _NotAList(f"it has no column 'uri', only {_shown(read[','])}")


def _csv_at_once(
    file: pa.NativeFile, wanted: dict[str, str], names: list[str], delimiter: str, encoding: str
) -> Iterator[Piece]:
    """The fast way; rows with too many or too few cells are handed out beside the others."""
    faults: list[tuple[int, str]] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        fault = f"{row.actual_columns} cells, the header has {row.expected_columns}"
        faults.append((int(row.number) - 1, fault))
        return "skip"

    reader = pa.csv.read_csv(
        file,
        read_options=pa.csv.ReadOptions(
            use_threads=False,  # for the number of a faulty row
            block_size=_BLOCK_BYTES,
            encoding="utf8" if encoding == "utf-8-sig" else encoding,
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(wanted),
            column_types=dict.fromkeys(wanted, pa.binary()),  # a film may be called "null" or "1"
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    if reader.num_rows:
        last = [column[-1].as_py() for column in reader.columns]
        if any(cell and b"\n" in cell for cell in last):
            raise _OpenQuote  # or a text of two lines, which the slow way reads as well
    yield names, _with_faults(reader.rename_columns(list(wanted.values())), faults)


def _with_faults(table: pa.Table, faults: list[tuple[int, str]]) -> dict[str, Any]:
    """Columns with the faulty rows at their places."""
    total = table.num_rows + len(faults)
    if not faults:
        numbers = pa.array(range(1, total + 1), pa.int64())
        return dict(zip(table.column_names, table.columns, strict=True)) | {
            "row": numbers,
            "fault": pa.nulls(total, pa.string()),
        }
    fault_of = dict(faults)
    order, place = [], 0
    for number in range(1, total + 1):
        order.append(None if number in fault_of else place)
        place += number not in fault_of
    taken = table.take(pa.array(order, pa.int64()))
    texts_of = [fault_of.get(number) for number in range(1, total + 1)]
    return dict(zip(taken.column_names, taken.columns, strict=True)) | {
        "row": pa.array(range(1, total + 1), pa.int64()),
        "fault": pa.array(texts_of, pa.string()),
    }


def _csv_by_lines(
    file: pa.NativeFile, wanted: dict[str, str], names: list[str], delimiter: str, encoding: str
) -> Iterator[Piece]:
    """The slow way, for files with a quotation mark that nothing closes.

    A row may run over several lines as long as its quotes are closed within `_ROW_LINES` of them; a
    line that opens a quote which none of those closes is one faulty row, and the next line begins anew.
    """
    text = io.TextIOWrapper(
        io.BufferedReader(file, _BLOCK_BYTES), encoding, "surrogateescape", newline=""
    )
    places = {name: names.index(name) for name in wanted}
    rows: list[dict[str, Any]] = []
    for number, cells in enumerate(_records(text, delimiter)):
        if number == 0:
            continue
        row: dict[str, Any] = {"row": number, "fault": None}
        if cells is None:
            row["fault"] = "a quotation mark that nothing closes"
        elif len(cells) != len(names):
            row["fault"] = f"{len(cells)} cells, the header has {len(names)}"
        else:
            row |= {
                low: cells[places[name]].encode("utf-8", "surrogateescape") or None
                for name, low in wanted.items()
            }
        rows.append(row)
    for begin in range(0, len(rows), _ROWS):
        yield names, _columns(rows[begin : begin + _ROWS], ["row", "fault", *wanted.values()])


_ROW_LINES = 200
"""A caption of more lines than this is a quote that was never closed."""


def _records(text: io.TextIOWrapper, delimiter: str) -> Iterator[list[str] | None]:
    """The rows of a table; None for a line that opens a quote which nothing closes."""
    csv.field_size_limit(_BLOCK_BYTES)  # the module's own limit is 128 KB
    lines = text.readlines()
    place = 0
    while place < len(lines):
        if not lines[place].strip("\r\n"):
            place += 1
            continue
        end = _end_of_record(lines, place)
        if end is None:
            yield None
            place += 1
        else:
            yield next(csv.reader(iter(lines[place:end]), delimiter=delimiter))
            place = end


def _end_of_record(lines: list[str], begin: int) -> int | None:
    """Index behind a record's last line: where its quotation marks are even in number."""
    is_open = False
    for place in range(begin, min(begin + _ROW_LINES, len(lines))):
        is_open ^= lines[place].count('"') % 2 == 1
        if not is_open:
            return place + 1
    return None


def _json_lines(file: pa.NativeFile, counts: dict[str, int]) -> Iterator[Piece]:
    """One JSON object a line; any other line is a faulty row."""
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    found = False
    for number, content, fault in read_objects(file, counts):
        row: dict[str, Any] = {"row": number, "fault": fault}
        for name, value in content.items():
            names.setdefault(name)
            low = name.strip().lower()
            if (low == "uri" or low in LIST_COLUMNS) and row.get(low) is None:
                row[low] = value
        found = found or "uri" in row
        rows.append(row)
        if len(rows) == _ROWS:
            yield list(names), _columns(rows, ["row", "fault", "uri", *LIST_COLUMNS])
            rows = []
    if not found:
        shown = f", only {_shown(list(names))}" if names else ": no line is a JSON object"
        raise _NotAList(f"it has no 'uri'{shown}")
    yield list(names), _columns(rows, ["row", "fault", "uri", *LIST_COLUMNS])


def _parquet(file: pa.NativeFile, counts: dict[str, int]) -> Iterator[Piece]:
    parquet = pq.ParquetFile(file)
    names = parquet.schema_arrow.names
    wanted = _wanted(names)
    number = 1
    for batch in parquet.iter_batches(_ROWS, columns=list(wanted)):
        numbers = pa.array(range(number, number + batch.num_rows), pa.int64())
        number += batch.num_rows
        cells = {low: pa.chunked_array([batch[name]]) for name, low in wanted.items()}
        yield names, cells | {"row": numbers, "fault": pa.nulls(batch.num_rows, pa.string())}


def _columns(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Rows as columns: plain lists, whose cells may be anything."""
    found = {name: [row.get(name) for row in rows] for name in names}
    return {
        n: cells for n, cells in found.items() if n == "fault" or any(c is not None for c in cells)
    }


def _rows(columns: dict[str, Any], *, folder: str, name: str, counts: dict[str, int]) -> pa.Table:
    """Rows of the sources layer out of the cells of a list."""
    num_rows = len(columns["row"])
    absent: list[None] = [None] * num_rows
    uris, rejects, details = address_columns(
        as_list(columns.get("uri", absent)),
        numbers=as_list(columns["row"]),
        faults=as_list(columns["fault"]),
        folder=folder,
        name=name,
    )
    given: dict[str, pa.Array] = {"listing_reject": rejects, "listing_reject_detail": details}
    for name, to in LIST_COLUMNS.items():
        if name not in columns:
            continue
        make: Callable[..., pa.Array] = captions_of if to == "given_captions" else texts
        array = make(columns[name], counts)
        given[to] = pc.coalesce(given[to], array) if to in given else array
    return source_rows(uris, given=given)
