"""Read a corpus again and compare every byte with what is on record.

Parts are compared with the ledger, shards and latents with their manifests, and small files with the digest
that they carry. What is not finished is told apart from what is damaged: its files are read as far as they
speak for themselves, since a run that died and a deleted file that was to be written last look the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import CorpusInfo, canonical_json, read_corpus, seal_of
from curation.corpus.record_file import Record
from curation.corpus.selection import FUNNEL, RULES, read_rules
from curation.corpus.shards import file_fault
from curation.corpus.store import Store
from curation.errors import CorpusError, NothingThere, TornPart
from pipelines.verify_notes import fault_of_facts, faults_of_notes, faults_of_report, seal_fault
from pipelines.verify_unfinished import faults_of_unfinished

READING_THREADS = 8
"""Files that are read at the same time; each is held whole, and a part of keyframes may have 100 MB."""
MANIFEST = "manifest.json"
PLAN = "plan.json"
ENCODED = "encoded"
SHARDS = "shards"
Progress = Callable[[str, int, int], None]
"""Called with a folder, files done, and files in all."""


class Kind(StrEnum):
    """What a damaged file belongs to; how it is repaired follows from it."""

    CORPUS = "corpus"
    RECORD = "record"
    SOURCES = "sources"
    LAYER = "layer"
    SELECTION = "selection"
    SHARDS = "shards"
    ENCODED = "encoded"
    REPORT = "report"
    NOTE = "note"
    """Spares work or says what is to be done; made of what lies there, so that it may be deleted."""
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One file that is not as it was written."""

    kind: Kind
    """What it belongs to."""
    folder: str
    """The folder of parts, of a selection, of its shards, or of one layer of latents."""
    name: str
    """Path of the file in the corpus."""
    what: str
    """What is wrong with it."""
    part: int | None = None
    """Number of the part, if the file is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A folder without the file that is written last, or with parts that are not there or on no record."""

    kind: Kind
    """What it is; RECORD where it lacks only that."""
    folder: str
    """The folder."""
    what: str
    """What it lacks, and what to do."""


@dataclass(slots=True)
class Findings:
    """What a corpus looks like when all of it is read."""

    faults: list[Fault] = field(default_factory=list)
    """Files that are damaged or gone."""
    unfinished: list[Unfinished] = field(default_factory=list)
    """What a run has still to end, or has lost what said that it had ended."""
    notes: list[str] = field(default_factory=list)
    """What is whole and waits for a command, a sentence each."""
    num_files: int = 0
    """Files that were read."""


def verify(
    store: Store,
    selection: str | None = None,
    *,
    only: frozenset[str] | None = None,
    on_progress: Progress = lambda folder, done, total: None,
) -> Findings:
    """Read sources, layers, selections, shards, latents, reports and the notes beside them.

    Args:
        store: the corpus.
        selection: read the verdicts, shards and latents of this one alone; None for all.
        only: folders to read, and no others; None for all.
        on_progress: told after every file.

    Raises:
        CorpusError: if there is no corpus, or one of another version.
    """
    return _Reader(store, selection, only, on_progress).read()


class _Reader:
    """One pass over a corpus."""

    def __init__(
        self,
        store: Store,
        selection: str | None,
        only: frozenset[str] | None,
        on_progress: Progress,
    ) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._selection = selection
        self._only = only
        self._progress = on_progress
        self._found = Findings()

    def read(self) -> Findings:
        """All that was asked for."""
        info = self._read_corpus()
        self._found.num_files += 1
        self._read_parts(Kind.SOURCES, layout.SOURCES, info.num_parts)
        current = set(info.layers.values())
        for layer_id in sorted(current | set(self._store.folders(layout.LAYERS))):
            self._read_layer(layer_id, info, is_current=layer_id in current)
        for name in self._names("selections"):
            self._read_selection(name, info)
        for name in self._names(SHARDS):
            self._read_manifest(Kind.SHARDS, layout.shards(name), "lavie export")
        for name in self._names(ENCODED):
            for layer_id in self._store.folders(f"{ENCODED}/{name}"):
                folder = layout.encoded(name, layer_id)
                self._read_manifest(Kind.ENCODED, folder, "lavie encode")
        self._read_notes()
        for name in self._names("reports"):
            self._read_report(name)
        return self._found

    def _read_corpus(self) -> CorpusInfo:
        """corpus.json; where it is damaged or gone, what the parts of the sources tell without it."""
        try:
            return read_corpus(self._store)
        except TornPart as error:
            what = _reason(error, layout.CORPUS)
        except NothingThere:
            if not self._store.files(layout.SOURCES):
                raise
            what = "missing"
        self._fault(Kind.CORPUS, "", layout.CORPUS, what)
        return CorpusInfo(num_parts=self._extent(layout.SOURCES)[0], layers={})

    def _extent(self, folder: str) -> tuple[int, frozenset[int]]:
        """How many parts a folder has by its files and its record, and which of them neither knows."""
        known = {layout.part_number(name.rpartition("/")[2]) for name in self._store.files(folder)}
        numbers = {part for part in known if part is not None}
        with suppress(TornPart):  # named when the parts are read
            numbers |= set(self._ledger.records(folder))
        num_parts = max(numbers, default=-1) + 1
        return num_parts, frozenset(range(num_parts)) - numbers

    def _read_notes(self) -> None:
        found = [*faults_of_notes(self._store)]
        found += filter(None, (fault_of_facts(self._store, name) for name in self._names(SHARDS)))
        for name, what in found:
            folder = name.rpartition("/")[0]
            if not self._wants(folder):
                continue
            self._found.num_files += 1
            if what is not None:
                self._fault(
                    Kind.REMOVED if name == layout.REMOVED else Kind.NOTE, folder, name, what
                )

    def _read_report(self, selection: str) -> None:
        folder = layout.report(selection)
        if not self._wants(folder):
            return
        try:
            for name, what in faults_of_report(self._store, selection):
                self._found.num_files += 1
                if what is not None:
                    self._fault(Kind.REPORT, folder, name, what)
        except FileNotFoundError:
            statistics = layout.report_statistics(selection)
            if self._store.exists(statistics):
                self._found.notes.append(
                    f"{folder}: made by a version that put no digest of it on record; run `lavie report`"
                )
            else:
                self._unfinished(Kind.REPORT, folder, statistics, "lavie report")

    def _names(self, folder: str) -> list[str]:
        names = self._store.folders(folder)
        return [name for name in names if self._selection in (None, name)]

    def _wants(self, folder: str) -> bool:
        return self._only is None or folder in self._only

    def _fault(
        self, kind: Kind, folder: str, name: str, what: str, part: int | None = None
    ) -> None:
        self._found.faults.append(Fault(kind=kind, folder=folder, name=name, what=what, part=part))

    def _unfinished(self, kind: Kind, folder: str, last: str, command: str) -> None:
        """Note that a folder lacks the file that is written last."""
        last = last.rpartition("/")[2]
        what = (
            f"not finished: {last}, which is written last, is not there; finish it with `{command}`, or, "
            f"if {last} was there, bring it back with `lavie verify --repair`"
        )
        self._found.unfinished.append(Unfinished(kind=kind, folder=folder, what=what))

    def _read_layer(self, layer_id: str, info: CorpusInfo, *, is_current: bool) -> None:
        folder = layout.layer_folder(layer_id)
        unmade = self._read_parts(Kind.LAYER, folder, info.num_parts)
        if unmade and is_current:
            what = (
                f"not finished: {unmade} of {info.num_parts} parts are missing and on no record, as they "
                "were never made or the folder is gone; run the same `lavie curate` again"
            )
            self._found.unfinished.append(Unfinished(kind=Kind.LAYER, folder=folder, what=what))

    def _read_parts(
        self, kind: Kind, folder: str, num_parts: int, *, without: frozenset[int] = frozenset()
    ) -> int:
        """Compare the parts of a folder with its record; returns how many were never made.

        Args:
            kind: of the folder.
            folder: of the parts.
            num_parts: that it has.
            without: numbers of those that were left out of it.
        """
        if not self._wants(folder):
            return 0
        try:
            states = self._ledger.states(folder, num_parts)
            records = self._ledger.records(folder)
        except TornPart as error:
            name = f"{folder}/{layout.COMMITTED}"
            self._fault(Kind.RECORD, folder, name, _reason(error, folder))
            return 0
        unmade = 0
        there = []
        for part, state in enumerate(states):
            if part in without:
                continue
            if state is PartState.MISSING and part not in records and kind is Kind.LAYER:
                unmade += 1
            elif state is not PartState.AGAIN:
                there.append(part)
        again = states.count(PartState.AGAIN)
        if again:
            what = f"not finished: {again} parts are to be made anew; run `lavie curate`"
            self._found.unfinished.append(Unfinished(kind=kind, folder=folder, what=what))
        for part, what in self._compare(folder, there, records):
            name = f"{folder}/{layout.part_file(part)}"
            self._fault(kind, folder, name, what, part)
        return unmade

    def _compare(
        self, folder: str, parts: Sequence[int], records: Mapping[int, Record]
    ) -> Iterator[tuple[int, str]]:
        """Parts that are not what the record says, and why; those on no record are tested alone."""

        def fault(part: int) -> str | None:
            if part not in records:
                try:
                    is_whole = self._ledger.read_record(folder, part) is not None
                except FileNotFoundError:
                    return "missing"
                return None if is_whole else "not a whole Parquet file"
            return _part_fault(self._store, f"{folder}/{layout.part_file(part)}", records[part])

        gone: set[int] = set()
        with ThreadPoolExecutor(READING_THREADS) as pool:
            for done, (part, what) in enumerate(zip(parts, pool.map(fault, parts), strict=True)):
                self._progress(folder, done + 1, len(parts))
                self._found.num_files += 1
                if what is not None:
                    if what == "missing":
                        gone.add(part)
                    yield part, what
        unrecorded = sum(part not in records and part not in gone for part in parts)
        if unrecorded:
            what = (
                f"not finished: {unrecorded} parts are on no record, as a run ended before it wrote them "
                f"down, or {layout.COMMITTED}/ is gone; they were tested by their own checksums alone. The "
                "next run records them, and `lavie verify --repair`"
            )
            self._found.unfinished.append(Unfinished(kind=Kind.RECORD, folder=folder, what=what))

    def _read_selection(self, name: str, info: CorpusInfo) -> None:
        folder = layout.selection(name)
        if not self._wants(folder):
            return
        rules = f"{folder}/{RULES}"
        funnel = f"{folder}/{FUNNEL}"
        self._found.num_files += 2
        gap = None
        try:
            gap = Gap.of_selection(read_rules(self._store, name))
        except NothingThere:
            self._unfinished(Kind.SELECTION, folder, RULES, f"lavie select --name {name}")
        except TornPart as error:
            self._fault(Kind.SELECTION, folder, rules, _reason(error, rules))
        if self._store.exists(funnel):
            if what := seal_fault(self._store, funnel):
                self._fault(Kind.SELECTION, folder, funnel, what)
        elif self._store.exists(rules):
            self._fault(Kind.SELECTION, folder, funnel, "missing")
        made_of, without = (gap.num_parts, gap.numbers) if gap is not None else self._extent(folder)
        self._read_parts(Kind.SELECTION, folder, made_of, without=without)
        if gap is not None:
            self._say_what_came_later(folder, gap, info)

    def _say_what_came_later(self, folder: str, gap: Gap, info: CorpusInfo) -> None:
        """Note the parts that a whole selection does not have."""
        if gap.numbers:
            self._found.notes.append(
                f"{folder}: made without {gap}; once `lavie curate` has made what is missing, "
                "`lavie select` takes it in"
            )
        if gap.num_parts != info.num_parts:
            self._found.notes.append(
                f"{folder}: made of {gap.num_parts} parts, the corpus has {info.num_parts}; "
                "`lavie select` takes the new ones in"
            )

    def _read_manifest(self, kind: Kind, folder: str, command: str) -> None:
        """Compare files with the manifest beside them."""
        if not self._wants(folder):
            return
        name = f"{folder}/{MANIFEST}"
        try:
            manifest = read_sealed_manifest(self._store, name)
        except FileNotFoundError:
            self._unfinished(kind, folder, name, command)
            for name, what in faults_of_unfinished(self._store, folder):
                self._found.num_files += 1
                if what is not None:
                    self._fault(kind, folder, name, what)
            return
        except TornPart as error:
            self._fault(kind, folder, name, _reason(error, name))
            return
        self._check_plan(kind, folder, manifest)
        files = sorted(manifest["files"].items())
        names = [f"{folder}/{name}" for name, _ in files]

        def fault(number: int) -> str | None:
            return file_fault(self._store, names[number], files[number][1])

        with ThreadPoolExecutor(READING_THREADS) as pool:
            for number, what in enumerate(pool.map(fault, range(len(files)))):
                self._progress(folder, number + 1, len(files))
                if what is not None:
                    self._fault(kind, folder, names[number], what)
        self._found.num_files += len(files) + 1

    def _check_plan(self, kind: Kind, folder: str, manifest: Mapping[str, Any]) -> None:
        """Compare the plan of latents with what the manifest says of it."""
        plan = manifest.get("plan")
        name = f"{folder}/{PLAN}"
        if plan is None:
            return
        try:
            is_same = self._store.read(name) == canonical_json(plan)
        except FileNotFoundError:
            self._fault(kind, folder, name, "missing")
        else:
            if not is_same:
                self._fault(kind, folder, name, "its bytes are not those that were written")


def read_sealed_manifest(store: Store, name: str) -> dict[str, Any]:
    """The manifest of shards or latents.

    Raises:
        FileNotFoundError: if there is none.
        TornPart: if its bytes are not those that were written.
    """
    data = store.read(name)
    try:
        content: dict[str, Any] = json.loads(data)
        is_whole = canonical_json(content) == data and content.get("digest") == seal_of(content)
    except (ValueError, AttributeError) as error:
        raise TornPart(f"{store.root}/{name}: not JSON ({error})") from error
    if not is_whole:
        raise TornPart(f"{store.root}/{name}: its bytes are not those that were written")
    return content


def _part_fault(store: Store, name: str, record: Record) -> str | None:
    try:
        data = store.read(name)
    except FileNotFoundError:
        return "missing"
    if len(data) != record.size_bytes:
        return f"{len(data)} bytes, the record says {record.size_bytes}"
    if hashlib.sha256(data).hexdigest() != record.sha256:
        return "sha256 is not the record's, its bytes have changed"
    return None


def _reason(error: CorpusError, name: str) -> str:
    """What an error says of a file, without its name, which a fault says already."""
    text = str(error)
    return text.partition(f"{name}: ")[2] or text
