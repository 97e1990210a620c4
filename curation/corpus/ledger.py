"""What was committed: digest, length and rows of every part, on record beside the parts.

::

    <folder>/committed/all.json       all parts up to the last time that the record was compacted
    <folder>/committed/000001.json    what has been put since; later numbers speak last

A folder of parts is `sources`, `layers/<id>` or `selections/<name>`. Whoever puts a part computes the digest
of the bytes that it puts; the one process that drives a run collects these and writes them down, some at
a time, since object stores cannot append. What is done is told from this record and one listing.

A part that will be made anew is marked as such before anything is done about it, and keeps its old digest:
a run that was killed in between leaves a mark, never a record of other bytes than are there, and the next
run sees whether the new part differs from the old one.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.parts import to_parquet, with_rows_digest
from curation.corpus.record_file import Record, read_record_file, record_file
from curation.corpus.store import FileFacts, Store

logger = logging.getLogger(__name__)

READING_THREADS = 16
"""Parts without a record that are read at the same time: they wait for the store, not for a core."""
COMPACTED_AT = 64
"""So many numbered files become one with all the others: a run of weeks leaves no more to read."""
_ALL = "all.json"
_LOADS = 5  # a reader that finds a file compacted away looks again so often
_COUNTED = {"probe": "source_reject", "scenes": "scene_reject", "captions": "caption_status"}
"""Layer -> the column whose values are counted into the record."""


class PartState(StrEnum):
    """How a part of a folder stands, as the record and a listing tell; no part is read for it."""

    DONE = "done"
    """There, and on record with this length."""
    MISSING = "missing"
    """Not there."""
    DAMAGED = "damaged"
    """There with another length than the record says; other damage shows only when bytes are read."""
    AGAIN = "again"
    """To be made anew."""
    UNRECORDED = "unrecorded"
    """There, but the run that put it ended before it was written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A part that was put just now; travels from the worker to the driver."""

    folder: str
    """Such as 'layers/scenes@1-1f0c'."""
    part: int
    """Its number."""
    record: Record
    """Of the bytes that were put."""


def commit_part(
    store: Store,
    folder: str,
    part: int,
    table: pa.Table,
    *,
    made_by: Mapping[str, Any] | None = None,
    rows_per_group: int | None = None,
) -> Commit:
    """Put one part, whole or not at all; returns what goes on record.

    Args:
        store: the corpus.
        folder: of the part.
        part: its number.
        table: its rows.
        made_by: see `to_parquet`.
        rows_per_group: see `to_parquet`.
    """
    data = to_parquet(with_rows_digest(table), made_by=made_by, rows_per_group=rows_per_group)
    store.write(f"{folder}/{layout.part_file(part)}", data)
    return Commit(folder=folder, part=part, record=record_of(folder, data, table))


def record_of(folder: str, data: bytes | pa.Buffer, table: pa.Table) -> Record:
    """The record of a part.

    Args:
        folder: where it lies; of some layers, values are counted.
        data: its file.
        table: its rows; what is counted must be among the columns.
    """
    return Record(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data) if isinstance(data, bytes) else data.size,
        num_rows=table.num_rows,
        counts=_counts(folder, table),
    )


def _counts(folder: str, table: pa.Table) -> dict[str, int]:
    column = _COUNTED.get(folder.removeprefix(f"{layout.LAYERS}/").partition("@")[0])
    if column is None or not folder.startswith(f"{layout.LAYERS}/"):
        return {}
    values = table[column].value_counts().to_pylist()
    counts = {f"{column}={entry['values'] or ''}": entry["counts"] for entry in values}
    if column == "scene_reject":
        counts["duration_ms"] = round(1000 * (pc.sum(table["duration_s"]).as_py() or 0))
    return counts


@dataclass(slots=True)
class _Folder:
    """One folder of parts as it was read, and what is to be written."""

    records: dict[int, Record]
    numbered: list[str]
    unwritten: set[int] = field(default_factory=set)

    @property
    def next_number(self) -> int:
        """Of the next numbered file."""
        last = self.numbered[-1] if self.numbered else f"{0:06d}.json"
        return int(last.rpartition("/")[2].removesuffix(".json")) + 1


class Ledger:
    """The records of a corpus, read when they are asked for; for one thread of one process.

    Only the run that holds the corpus writes; others may read at any time.

    Args:
        store: the corpus.
        is_read_only: for who only looks: what is taken into the record is not written down.
    """

    def __init__(self, store: Store, *, is_read_only: bool = False) -> None:
        self.store = store
        self._is_read_only = is_read_only
        self._folders: dict[str, _Folder] = {}
        self._listed: dict[str, dict[str, FileFacts]] = {}

    def records(self, folder: str) -> Mapping[int, Record]:
        """Part -> its record.

        Raises:
            TornPart: if a file of the record is damaged.
        """
        return self._folder(folder).records

    def look(self, folders: Iterable[str]) -> None:
        """List and read some folders at the same time, for the next `states` of each."""
        wanted = list(dict.fromkeys(folders))
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            listed = pool.map(lambda folder: self.store.listing(folder, recursive=True), wanted)
            self._listed = dict(zip(wanted, listed, strict=True))
            fresh = [folder for folder in wanted if folder not in self._folders]
            loaded = pool.map(lambda folder: self._load(folder, self._listed[folder]), fresh)
            self._folders.update(zip(fresh, loaded, strict=True))

    def states(self, folder: str, num_parts: int) -> list[PartState]:
        """How each part of a folder stands; one listing, unless `look` has just made it."""
        files = self._listed.pop(folder, None)
        if files is None:
            files = self.store.listing(folder, recursive=True)
        records = self._folder(folder, files).records
        start = f"{folder}/"
        return [
            _state(records.get(part), files.get(start + layout.part_file(part)))
            for part in range(num_parts)
        ]

    def counts(self, folder: str) -> Counter[str]:
        """Sum of `Record.counts` over the parts, and "rows"."""
        total: Counter[str] = Counter()
        for record in self.records(folder).values():
            total.update(record.counts)
            total["rows"] += record.num_rows
        return total

    def values(self, folder: str, column: str) -> Counter[str]:
        """How often each value of a counted column was written; "" stands for null."""
        counts, start = self.counts(folder), f"{column}="
        return Counter(
            {name.removeprefix(start): n for name, n in counts.items() if name.startswith(start)}
        )

    def record(self, commits: Iterable[Commit]) -> None:
        """Take parts that were put into the record; `flush` writes it."""
        for commit in commits:
            folder = self._folder(commit.folder)
            folder.records[commit.part] = commit.record
            folder.unwritten.add(commit.part)

    def mark_again(self, folder: str, parts: Iterable[int]) -> frozenset[int]:
        """Write down that parts will be made anew, before anything is done about them.

        Returns:
            Those that were on record; the others need no mark.
        """
        known = self._folder(folder)
        marked = frozenset(part for part in parts if part in known.records)
        for part in marked:
            if not known.records[part].again:
                known.records[part] = replace(known.records[part], again=True)
                known.unwritten.add(part)
        self._flush(folder)
        return marked

    def differs(self, commit: Commit) -> bool:
        """Whether a part was on record with other bytes than were put just now."""
        before = self._folder(commit.folder).records.get(commit.part)
        return before is not None and before.sha256 != commit.record.sha256

    def reconcile(self, folder: str, num_parts: int) -> list[PartState]:
        """Take parts that are on no record into it; returns how all parts stand then.

        Each of them is read whole, and every checksum in it tested. What is not whole stays
        `DAMAGED`.
        """
        states = self.states(folder, num_parts)
        known = {PartState.UNRECORDED}
        if (
            folder == layout.SOURCES
        ):  # an update was cut off: the file is whole, the old or the new one
            known.add(PartState.AGAIN)
        found = [part for part, state in enumerate(states) if state in known]
        if not found:
            return states
        logger.info("%s: %d parts are on no record yet and are read", folder, len(found))
        with ThreadPoolExecutor(READING_THREADS) as pool:
            for part, record in zip(
                found, pool.map(lambda part: self.read_record(folder, part), found), strict=True
            ):
                if record is None:
                    states[part] = PartState.DAMAGED
                else:
                    states[part] = PartState.DONE
                    self.record([Commit(folder=folder, part=part, record=record)])
        self._flush(folder)
        return states

    def read_record(self, folder: str, part: int) -> Record | None:
        """The record of a part by its file, every checksum in it tested; None if it is not whole."""
        name = f"{folder}/{layout.part_file(part)}"
        data = self.store.read(name)
        try:
            table = pq.read_table(
                pa.BufferReader(data), page_checksum_verification=True, use_threads=False
            )
            return record_of(folder, data, table)
        except (pa.ArrowException, OSError, KeyError) as error:
            logger.warning("%s/%s: not a whole Parquet file (%s)", self.store.root, name, error)
            return None

    def flush(self) -> None:
        """Write what was taken into the record since the last time."""
        for folder in self._folders:
            self._flush(folder)

    def _flush(self, folder: str) -> None:
        if self._is_read_only:
            return
        self._write_down(folder)
        if len(self._folders[folder].numbered) >= COMPACTED_AT:
            self._compact(folder)

    def _write_down(self, folder: str) -> None:
        """Put what is new into one more numbered file."""
        known = self._folders[folder]
        if not known.unwritten:
            return
        name = f"{folder}/{layout.COMMITTED}/{known.next_number:06d}.json"
        self.store.write(name, record_file({part: known.records[part] for part in known.unwritten}))
        known.numbered.append(name)
        known.unwritten.clear()

    def compact(self) -> None:
        """One file a folder for all that was read or written; for the end of a run.

        The numbered files go in their order, and all.json says what they say: killed in between,
        what is left of them changes nothing.
        """
        for folder in self._folders:
            self._compact(folder)

    def _compact(self, folder: str) -> None:
        known = self._folders[folder]
        if known.numbered:  # or what is left of them after a kill would speak over newer records
            self._write_down(folder)
        if known.numbered or known.unwritten:
            self.store.write(f"{folder}/{layout.COMMITTED}/{_ALL}", record_file(known.records))
            for name in known.numbered:
                self.store.delete(name)
            known.numbered.clear()
            known.unwritten.clear()

    def _folder(self, folder: str, files: Iterable[str] | None = None) -> _Folder:
        if folder not in self._folders:
            self._folders[folder] = self._load(folder, files)
        return self._folders[folder]

    def _load(self, folder: str, files: Iterable[str] | None) -> _Folder:
        place = f"{folder}/{layout.COMMITTED}"
        for left in reversed(range(_LOADS)):
            if files is None:
                files = self.store.files(place)
            here = sorted(name for name in files if name.startswith(f"{place}/"))
            numbered = [name for name in here if not name.endswith(f"/{_ALL}")]
            try:
                return _Folder(
                    self._read([name for name in here if name not in numbered] + numbered), numbered
                )
            except FileNotFoundError:
                files = None  # the run that writes has just compacted it: list again
                if not left:
                    raise
        raise AssertionError("the last time raises")

    def _read(self, names: Sequence[str]) -> dict[int, Record]:
        """The records of some files, each speaking over those before it."""
        records: dict[int, Record] = {}
        with ThreadPoolExecutor(READING_THREADS) as pool:
            for name, data in zip(names, pool.map(self.store.read, names), strict=True):
                records |= read_record_file(data, f"{self.store.root}/{name}")
        return records


def _state(record: Record | None, file: FileFacts | None) -> PartState:
    if record is not None and record.again:
        return PartState.AGAIN
    if file is None:
        return PartState.MISSING
    if record is None:
        return PartState.UNRECORDED
    return PartState.DONE if file.size_bytes == record.size_bytes else PartState.DAMAGED
