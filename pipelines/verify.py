"""Read a corpus again and compare every byte with what is on record.

Parts are compared with the ledger, shards and latents with their manifests, and small files with the digest
that they carry. What is not finished is told apart from what is damaged: its files are read as far as they
speak for themselves, since a run that died and a deleted file that was to be written last look the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from curation.corpus import layout
from curation.corpus.gap import Gap, find_gap
from curation.corpus.generations import begun_generations
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import CorpusInfo, canonical_json, read_corpus
from curation.corpus.record_file import Record
from curation.corpus.selection import FUNNEL, RULES, read_rules
from curation.corpus.shards import file_fault
from curation.corpus.store import Store
from curation.errors import CorpusError, NothingThere, TornPart
from pipelines import advice
from pipelines.findings import Fault, Findings, Kind, Unfinished
from pipelines.verify_notes import (
    MANIFEST,
    fault_of_facts,
    faults_of_notes,
    faults_of_report,
    read_sealed_manifest,
    seal_fault,
)
from pipelines.verify_unfinished import faults_of_unfinished

READING_THREADS = 8
"""Files that are read at the same time; each is held whole, and a part of keyframes may have 100 MB."""
PLAN = "plan.json"
ENCODED = "encoded"
SHARDS = "shards"
Progress = Callable[[str, int, int], None]
"""Called with a folder, files done, and files in all."""


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
            folder, command = layout.shards(name), advice.export_again(self._store, name)
            self._read_manifest(Kind.SHARDS, folder, command)
            self._read_begun(name, folder, command)
        for name in self._names(ENCODED):
            for layer_id in self._store.folders(f"{ENCODED}/{name}"):
                folder = layout.encoded(name, layer_id)
                self._read_manifest(Kind.ENCODED, folder, advice.encode_again(self._store, name))
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
                    f"{folder}: made by a version that put no digest of it on record; run "
                    f"{advice.report_again(self._store, selection)}"
                )
            else:
                self._unfinished(
                    Kind.REPORT, folder, statistics, advice.report_again(self._store, selection)
                )

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
            f"not finished: {last}, which is written last, is not there; finish it with {command}, or, if "
            f"{last} was there, bring it back with {advice.repair(self._store)}"
        )
        self._found.unfinished.append(Unfinished(kind=kind, folder=folder, what=what))

    def _read_layer(self, layer_id: str, info: CorpusInfo, *, is_current: bool) -> None:
        folder = layout.layer_folder(layer_id)
        unmade = self._read_parts(
            Kind.LAYER, folder, info.num_parts, again=advice.curate_again(info)
        )
        if unmade and is_current:
            what = (
                f"not finished: {unmade} of {info.num_parts} parts are missing and on no record, as they "
                f"were never made or the folder is gone; {advice.curate_again(info)} makes them"
            )
            self._found.unfinished.append(Unfinished(kind=Kind.LAYER, folder=folder, what=what))

    def _read_parts(
        self,
        kind: Kind,
        folder: str,
        num_parts: int,
        *,
        without: frozenset[int] = frozenset(),
        again: str = "the same `lavie curate`",
    ) -> int:
        """Compare the parts of a folder with its record; returns how many were never made.

        Args:
            kind: of the folder.
            folder: of the parts.
            num_parts: that it has.
            without: numbers of those that were left out of it.
            again: the command that makes marked parts anew.
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
        num_again = states.count(PartState.AGAIN)
        if num_again:
            what = f"not finished: {num_again} parts are to be made anew; {again} makes them"
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
                f"next run records them, and {advice.repair(self._store)}"
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
            self._unfinished(Kind.SELECTION, folder, RULES, advice.select_again(self._store, name))
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
            self._say_what_came_later(name, gap, info)

    def _say_what_came_later(self, name: str, gap: Gap, info: CorpusInfo) -> None:
        """Note the parts that a whole selection does not have."""
        folder = layout.selection(name)
        if gap.numbers:
            now = None
            with suppress(CorpusError):  # a damaged record is named by itself
                now = find_gap(self._ledger, info)
            how = advice.take_in(self._store, info, name, without=gap, now=now)
            self._found.notes.append(f"{folder}: made without {gap}; due: {how}")
        if gap.num_parts != info.num_parts:
            self._found.notes.append(
                f"{folder}: made of {gap.num_parts} parts, the corpus has {info.num_parts}; "
                f"due: {advice.select_again(self._store, name)}"
            )

    def _read_begun(self, selection: str, folder: str, command: str) -> None:
        """Note an export that was begun beside finished ones, and read the files that it has made."""
        if not self._wants(folder):
            return
        with suppress(
            FileNotFoundError, CorpusError
        ):  # named already, or what is not finished is all
            manifest = read_sealed_manifest(self._store, f"{folder}/{MANIFEST}")
            known = {*manifest["files"], MANIFEST}
            for name, what in faults_of_unfinished(self._store, folder, known=known):
                self._found.num_files += 1
                if what is not None:
                    self._fault(Kind.SHARDS, folder, name, what)
            for number in begun_generations(self._store, selection):
                what = f"not finished: generation {number} was begun; {command} goes on with it"
                self._found.unfinished.append(
                    Unfinished(kind=Kind.SHARDS, folder=folder, what=what)
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
