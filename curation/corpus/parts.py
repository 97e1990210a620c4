"""Files of a corpus as tables, and the layers of one part laid side by side.

The only reader of parts: stations, select, export and report all come here. What is missing or damaged is
a `CorpusError` of one sentence that names the file and says what to do.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from curation.corpus import layout
from curation.corpus.schema import CLIP_COLUMNS, LAYER_OF, SOURCE_COLUMNS
from curation.corpus.store import Store
from curation.errors import MissingColumn, MissingPart, TornPart

T = TypeVar("T")

LAYER_METADATA = b"lavie.layer"
ROWS_METADATA = b"lavie.rows"
"""Digest of the clip ids of a layer's file: layers are compared by it, without reading six layers' ids,
which would be most of a query's bytes. Not by Parquet's own range of ids: asking pyarrow for it ends the
process where the footer has a flipped bit."""

PARTS_AHEAD = 2
"""Parts that each reading thread may be ahead of whoever takes them: enough to never wait, little
enough to hold (a part of 10,000 clips takes about 1 MB in `select`)."""

_REMEDIES = {
    "layers": (
        "run the same `lavie curate` again, which makes what is missing",
        "`lavie verify --repair` makes it anew",
    ),
    "sources": (
        "the list of sources is kept nowhere else, restore it from a copy",
        "the list of sources is kept nowhere else, restore it from a copy",
    ),
    "selections": ("run `lavie select` again", "run `lavie select` again"),
    "clusters": ("run `lavie select` again", "restore it from a copy; without it numbers change"),
    "shards": ("run `lavie export` again", "`lavie verify --repair` makes it anew"),
    "encoded": ("run `lavie encode` again", "run `lavie encode` again"),
}
"""First folder of a path -> what to do where a file is missing, and where it is damaged."""


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


def with_rows_digest(table: pa.Table) -> pa.Table:
    """The table of a layer, such that its file will say of which clips its rows are."""
    if "clip_id" not in table.column_names:
        return table
    ids = "\n".join(clip_id or "" for clip_id in table["clip_id"].to_pylist())
    digest = hashlib.sha256(ids.encode()).hexdigest().encode()
    metadata = dict(table.schema.metadata or {}) | {ROWS_METADATA: digest}
    return table.replace_schema_metadata(metadata)


class _Ranges(io.RawIOBase):
    """A remote file of which only what is asked for is fetched, with the store's retries."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self._place = store, name, 0
        self._size = store.size_bytes(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        wanted = left if size < 0 else min(size, left)
        data = b""
        if wanted:
            data = self._store.read_range(self._name, offset=self._place, size_bytes=wanted)
        self._place += len(data)
        return data


@contextmanager
def open_parquet(
    store: Store, name: str, *, dictionaries: Sequence[str] = (), few_rows: bool = False
) -> Iterator[pq.ParquetFile]:
    """One Parquet file of the corpus, of which only what is asked for will be decoded.

    Args:
        store: the corpus.
        name: path in it.
        dictionaries: text columns to give as Arrow dictionaries.
        few_rows: of a remote file, fetch only what is read instead of the whole.

    Raises:
        MissingPart: if the file is not there.
        TornPart: if its bytes are damaged, also when that shows inside the block.
    """
    when_missing, when_damaged = _REMEDIES.get(name.partition("/")[0], ("", ""))
    try:
        source = _source(store, name, few_rows=few_rows)
    except FileNotFoundError as error:
        raise MissingPart(f"{store.root}/{name} is missing: {when_missing}") from error
    try:
        with (
            source,
            pq.ParquetFile(
                source, read_dictionary=list(dictionaries), page_checksum_verification=True
            ) as file,
        ):
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's word, not the Parquet reader's
        why = " ".join(str(error).split())
        raise TornPart(
            f"{store.root}/{name} is damaged, {when_damaged} (not a whole Parquet file: {why})"
        ) from error


def _source(store: Store, name: str, *, few_rows: bool) -> pa.NativeFile:
    if store.is_local:
        return store.filesystem.open_input_file(store.path(name))
    if few_rows:
        return pa.PythonFile(_Ranges(store, name), mode="r")
    # Objects come whole: Store.read checks lengths and tries again, which a stream does not.
    return pa.BufferReader(store.read(name))


def _read(
    file: pq.ParquetFile, place: str, columns: Sequence[str], rows: ArrayLike | None = None
) -> pa.Table:
    """Columns of an open file; of some rows only, one row group in memory at a time."""
    lacking = sorted(set(columns) - set(file.schema_arrow.names))
    if lacking:
        raise TornPart(
            f"{place} lacks the column {lacking[0]!r}: another version of this program wrote it; "
            f"delete its folder and make it anew"
        )
    if rows is None:
        table = file.read(columns=list(columns), use_threads=False)
        _check_length(table, file.metadata.num_rows)
        return table
    wanted, end, found = np.asarray(rows, np.int64), 0, []
    for group in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        here = wanted[(wanted >= begin) & (wanted < end)] - begin
        if len(here):
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
            found.append(table.take(pa.array(here)))
    table = pa.concat_tables([file.schema_arrow.empty_table().select(list(columns)), *found])
    _check_length(table, len(wanted))
    return table


def _check_length(table: pa.Table, expected: int) -> None:
    """Say as the reader would, which does not look, that a footer contradicts itself."""
    if table.num_columns and table.num_rows != expected:
        raise pa.ArrowInvalid(f"{table.num_rows} rows where {expected} are promised")


def read_table(
    store: Store,
    name: str,
    columns: Iterable[str] | None = None,
    *,
    later: Collection[str] = (),
) -> pa.Table:
    """One Parquet file of the corpus.

    Args:
        store: the corpus.
        name: of the file.
        columns: those to read; all if not given.
        later: those that files of an earlier program lack; they are left out then.

    Raises:
        MissingPart: if it was never committed.
        TornPart: if its bytes are damaged.
    """
    with open_parquet(store, name) as file:
        there = file.schema_arrow.names
        wanted = there if columns is None else [c for c in columns if c in there or c not in later]
        return _read(file, f"{store.root}/{name}", wanted)


def read_clips(
    store: Store,
    layers: Mapping[str, str],
    part: int,
    columns: Iterable[str],
    *,
    rows: ArrayLike | None = None,
) -> pa.Table:
    """Clips of one part with the columns asked for, from as many layers as hold them.

    Args:
        store: the corpus.
        layers: layer name -> layer id (`corpus.json` has the current ones).
        part: number of the part.
        columns: names of clip or source columns; `clip_id` always comes first.
        rows: only these rows of the part, rising; of heavy layers no more is read than holds them.

    Returns:
        One row a scene, in the order of the scenes layer.

    Raises:
        MissingColumn: if no layer of ``layers`` holds one of the columns.
        MissingPart: if a layer lacks this part.
        TornPart: if a file is damaged, or its rows are not those of the scenes layer.
    """
    wanted = list(dict.fromkeys(("clip_id", *columns)))
    return _Part(store, layers, part).read(wanted, rows=rows)


def with_rows(table: pa.Table, rows: np.ndarray, values: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The table with other values in some rows.

    Args:
        table: of any columns.
        rows: places, rising.
        values: what stands there instead, with a value of each column.
    """
    if not len(rows):
        return table
    kept = [{name: value[name] for name in table.column_names} for value in values]
    others = pa.Table.from_pylist(kept, schema=table.schema)
    order = np.arange(table.num_rows)
    order[rows] = table.num_rows + np.arange(len(rows))
    both = pa.concat_tables([table, others])
    return both.take(pa.array(order)).combine_chunks().cast(table.schema)


def read_columns(
    store: Store, layers: Mapping[str, str], part: int, columns: Iterable[str]
) -> pa.Table:
    """Columns of the clips of one part, as a query over millions of clips wants them.

    As `read_clips`, but exactly the columns asked for, and texts other than ids as Arrow dictionaries.
    """
    return _Part(store, layers, part).read(list(dict.fromkeys(columns)), dictionaries=True)


def read_sources(
    store: Store, layers: Mapping[str, str], part: int, columns: Iterable[str]
) -> pa.Table:
    """Columns of the sources of one part, one row a source.

    Raises:
        MissingColumn: if one is no column of sources, or the corpus lacks the probe layer.
        MissingPart: if a file is not there.
        TornPart: if a file is damaged, or the probe layer is not of these sources.
    """
    wanted = list(columns)
    for name in wanted:
        if name not in SOURCE_COLUMNS:
            raise MissingColumn(f"no column of sources is called {name!r}")
    check_columns(wanted, layers)
    found = _Part(store, layers, part).source_columns(wanted)
    if len({len(column) for column in found.values()}) > 1:
        place = f"{store.root}/{layout.layer(layers['probe'], part)}"
        raise TornPart(f"{place}: its rows are not those of {layout.sources(part)}")
    return pa.table({name: found[name] for name in wanted})


def num_clips(store: Store, layers: Mapping[str, str], part: int) -> int:
    """Clips of one part, from the footer of its scenes."""
    with _Part(store, layers, part).open("scenes") as file:
        return int(file.metadata.num_rows)


def in_order(
    work: Callable[[int], T], parts: Iterable[int], *, threads: int
) -> Iterator[tuple[int, T]]:
    """Do something for every part, a few at a time; results come in the order of ``parts``."""
    pending: list[tuple[int, Future[T]]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part in parts:
                pending.append((part, pool.submit(work, part)))
                if len(pending) >= threads * PARTS_AHEAD:
                    done, future = pending.pop(0)
                    yield done, future.result()
            while pending:
                done, future = pending.pop(0)
                yield done, future.result()
        finally:
            for _, future in pending:
                future.cancel()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which rows a file has: how many, and the digest of their clip ids where the file tells it."""

    count: int
    digest: bytes | None

    @classmethod
    def of(cls, file: pq.ParquetFile) -> _Rows:
        metadata = file.schema_arrow.metadata or {}
        return cls(int(file.metadata.num_rows), metadata.get(ROWS_METADATA))


@dataclass(frozen=True, slots=True)
class _Part:
    """The files of one part."""

    store: Store
    layers: Mapping[str, str]
    number: int

    def path(self, layer: str) -> str:
        if layer == "sources":
            return layout.sources(self.number)
        return layout.layer(self.layers[layer], self.number)

    @contextmanager
    def open(
        self, layer: str, *, dictionaries: Sequence[str] = (), few_rows: bool = False
    ) -> Iterator[pq.ParquetFile]:
        name = self.path(layer)
        with open_parquet(self.store, name, dictionaries=dictionaries, few_rows=few_rows) as file:
            yield file

    def read(
        self,
        columns: Sequence[str],
        *,
        rows: ArrayLike | None = None,
        dictionaries: bool = False,
    ) -> pa.Table:
        """The columns in their order; see `read_clips` and `read_columns`."""
        check_columns(("clip_id", *columns), self.layers)
        given = [name for name in columns if name in SOURCE_COLUMNS]
        of_layer: dict[str, list[str]] = {"scenes": ["source_row"] if given else []}
        for name in columns:
            if name not in given:
                of_layer.setdefault(LAYER_OF[name], []).append(name)
        found: dict[str, pa.ChunkedArray] = {}
        scenes = _Rows(0, None)
        for layer, names in of_layer.items():
            texts = [name for name in names if dictionaries and _repeats(name)]
            with self.open(layer, dictionaries=texts, few_rows=rows is not None) as file:
                if layer == "scenes":
                    scenes = _Rows.of(file)
                else:
                    self._check_rows(layer, file, scenes)
                table = _read(file, self._place(layer), list(dict.fromkeys(names)), rows)
            found |= {name: table[name] for name in names}
        if given:
            of_source = self.source_columns(given, dictionaries=dictionaries)
            place = found["source_row"]
            found |= {name: column.take(place) for name, column in of_source.items()}
        if not columns:
            return pa.table({"": pa.nulls(scenes.count)}).select([])
        return pa.table({name: found[name] for name in columns})

    def _check_rows(self, layer: str, file: pq.ParquetFile, scenes: _Rows) -> None:
        """Check that a layer's file is for the clips of the scenes layer, in their order."""
        own = _Rows.of(file)
        same = own.count == scenes.count
        if same and own.digest is not None and scenes.digest is not None:
            same = own.digest == scenes.digest
        elif same:  # an older version wrote one of them
            ids = _read(file, self._place(layer), ["clip_id"])["clip_id"]
            with self.open("scenes") as other:
                same = ids.equals(_read(other, self._place("scenes"), ["clip_id"])["clip_id"])
        if not same:
            raise TornPart(
                f"{self._place(layer)}: its rows are not those of the scenes layer; "
                f"{_REMEDIES['layers'][1]}"
            )

    def source_columns(
        self, columns: Sequence[str], *, dictionaries: bool = False
    ) -> dict[str, pa.ChunkedArray]:
        """Columns of the sources, one value a source."""
        found: dict[str, pa.ChunkedArray] = {}
        for layer in dict.fromkeys(LAYER_OF[name] for name in columns):
            names = [name for name in columns if LAYER_OF[name] == layer]
            texts = [name for name in names if dictionaries and _repeats(name)]
            with self.open(layer, dictionaries=texts) as file:
                table = _read(file, self._place(layer), names)
            found |= {name: table[name] for name in names}
        return found

    def _place(self, layer: str) -> str:
        return f"{self.store.root}/{self.path(layer)}"


def _repeats(name: str) -> bool:
    """Whether a column is worth reading as a dictionary: texts other than ids repeat themselves."""
    column = CLIP_COLUMNS.get(name) or SOURCE_COLUMNS[name]
    return name != "clip_id" and pa.types.is_string(column.type)


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
