"""Make what is damaged or gone anew, by the same steps that made it, and leave the rest as it is.

The same inputs give the same bytes, so what was made of a part stays when the part comes out as it was
on record; when it does not, what was made of it is made anew too. Nothing is thrown away that cannot be
made: a part whose source is gone stays as it is, and is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from curation.corpus import layout
from curation.corpus.generations import read_plans
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import read_table
from curation.corpus.scratch import scratch_folder
from curation.corpus.selection import RULES, read_rules
from curation.corpus.settings import settings_from
from curation.corpus.shards import read_manifest
from curation.corpus.store import Store
from curation.errors import BadSource, CorpusError, LavieError, TornPart
from curation.report import ReportConfig, rewrite_report
from curation.select import SelectConfig, select
from curation.sources import fetched
from pipelines import curate, river
from pipelines.again import noted_parts
from pipelines.curation_config import RiverConfig
from pipelines.findings import Fault, Findings, Kind, Unfinished
from pipelines.moved import moved_sources
from pipelines.repair_latents import repair_latents
from pipelines.repair_shards import drop_begun, lost_plans, repair_shards, restore_plans
from pipelines.run import UnitsFailed
from pipelines.verify import verify

_T = TypeVar("_T")


@dataclass(slots=True)
class Repaired:
    """What a repair did."""

    left: Findings
    """Another look at every folder that had a fault."""
    said: list[str] = field(default_factory=list)
    """Why something could not be repaired, and what to do about it; a sentence each."""


def repair(
    store: Store,
    found: Findings,
    *,
    console: Console,
    ray_address: str = "local",
    moved_to: Sequence[str] = (),
) -> Repaired:
    """Redo what is damaged or missing.

    Args:
        store: the corpus, held by this run.
        found: by `verify`.
        console: for progress.
        ray_address: see `curate.HowToRun`.
        moved_to: where to look for films that are not at their addresses any more.
    """
    work = _Repair(store, found, console, ray_address, moved_to)
    said = work.run()
    folders = {fault.folder for fault in found.faults}
    folders |= {one.folder for one in found.unfinished} | work.touched
    return Repaired(verify(store, only=frozenset(folders)), said)


class _Repair:
    """One repair under way."""

    def __init__(
        self,
        store: Store,
        found: Findings,
        console: Console,
        ray_address: str,
        moved_to: Sequence[str],
    ) -> None:
        self._store = store
        self._faults = found.faults
        self._unfinished = found.unfinished
        self._console = console
        self._ray_address = ray_address
        self._moved_to = moved_to
        self._moved: dict[str, str] = {}
        self._said: list[str] = []
        self._without_plans: set[str] = set()
        self._unselected: set[str] = set()
        self.touched: frozenset[str] = frozenset()

    def _of(self, *kinds: Kind) -> list[Fault]:
        return [fault for fault in self._faults if fault.kind in kinds]

    def _folders(self, *kinds: Kind) -> list[str]:
        """Folders that lack something of one of these kinds, or are not finished."""
        found: list[Fault | Unfinished] = [*self._faults, *self._unfinished]
        return sorted({one.folder for one in found if one.kind in kinds})

    def run(self) -> list[str]:
        """Repair in the order in which things are made of each other; what fails stops nothing else."""
        self._drop_notes()
        for folder in self._folders(Kind.SHARDS):
            self._try(f"{folder}: its plans", self._restore_plans, folder.partition("/")[2])
        if self._of(Kind.CORPUS):
            self._said.append(
                f"{layout.CORPUS} names layers and settings and nothing else does: put it back from a copy, "
                "then repair again. Only notes and plans of shards were repaired without it"
            )
            return self._said
        info = read_corpus(self._store)
        if self._of(Kind.LAYER, Kind.SHARDS):
            self._moved = moved_sources(self._store, info, self._moved_to)
        self._forget_records()
        for folder in self._folders(Kind.RECORD):
            self._try(f"{folder}: its record", self._record, folder, info.num_parts)
        if self._of(Kind.SOURCES):
            self._said.append(
                "parts of the list of sources are written once and made of nothing else: put them "
                "back from a copy"
            )
        changed = self._try("layers", self._redo_layers, info) or set()
        selections = {folder.partition("/")[2] for folder in self._folders(Kind.SELECTION)}
        for name in sorted(selections | set(self._selections_of(changed))):
            self._try(layout.selection(name), self._select, info, name)
        for folder in self._folders(Kind.SHARDS):
            self._try(folder, self._repair_shards, info, folder.partition("/")[2])
        for folder in sorted({fault.folder for fault in self._of(Kind.ENCODED)}):
            faults = [fault for fault in self._faults if fault.folder == folder]
            self._said += self._try(folder, repair_latents, self._store, folder, faults) or []
        for folder in self._folders(Kind.REPORT):
            self._try(folder, self._report, info, folder.partition("/")[2])
        return self._said

    def _try(self, what: str, step: Callable[..., _T], *given: Any) -> _T | None:
        """One step; why it failed is said, and the next ones are tried all the same."""
        try:
            return step(*given)
        except (LavieError, OSError, pa.ArrowException) as error:
            self._said.append(f"{what}: cannot be made anew ({error})")
            return None

    def _restore_plans(self, selection: str) -> None:
        """Before anything reads them: what is damaged must not be believed."""
        lost = lost_plans(self._store, selection)
        if restore_plans(self._store, selection) or lost:
            self._without_plans.add(selection)
        self._said += lost

    def _repair_shards(self, info: CorpusInfo, selection: str) -> None:
        if selection in self._unselected:
            self._said.append(
                f"{layout.shards(selection)}: left as it is, since its selection could not be made anew"
            )
            return
        damaged = [fault.name for fault in self._of(Kind.SHARDS)]
        self._said += drop_begun(self._store, selection, damaged)
        self._said += repair_shards(
            self._store,
            info,
            selection,
            self._moved,
            console=self._console,
            ray_address=self._ray_address,
        )

    def _record(self, folder: str, num_parts: int) -> None:
        """Put parts on record that are on none: read whole, all checksums in them tested."""
        ledger = Ledger(self._store)
        ledger.reconcile(folder, num_parts)
        ledger.compact()

    def _drop_notes(self) -> None:
        """Take damaged notes away: who needs one does without it, at the price of more work."""
        for fault in self._of(Kind.NOTE):
            self._store.delete(fault.name)
        for fault in self._of(Kind.REMOVED):
            self._said.append(
                f"{fault.name} keeps out what was removed from this corpus and nothing else says what that "
                "is: put it back from a copy"
            )

    def _report(self, info: CorpusInfo, selection: str) -> None:
        rewrite_report(self._store, info, selection, ReportConfig())
        self._said.append(
            f"{layout.report(selection)}: written anew, with the default settings of `lavie report`"
        )

    def _forget_records(self) -> None:
        """Take damaged records away: the parts are read and recorded again."""
        for fault in self._of(Kind.RECORD):
            for name in self._store.files(f"{fault.folder}/{layout.COMMITTED}"):
                self._store.delete(name)
            self._said.append(
                f"{fault.folder}: its record was damaged and is made anew from the parts that are there; "
                "that they are the ones that were written is told by their own checksums alone"
            )

    def _redo_layers(self, info: CorpusInfo) -> set[str]:
        """Make damaged parts of layers anew; returns the folders of which a part came out otherwise."""
        faults = self._of(Kind.LAYER)
        if not faults:
            return set()
        try:
            configured = replace(curate.configure(_settings(info)), moved=self._moved)
        except LavieError as error:
            self._said.append(f"layers cannot be made anew here: {error}")
            return set()
        folders = {layout.layer_folder(layer_id) for layer_id in configured.layers.values()}
        decoded = {layout.layer_folder(configured.layers[name]) for name in river.DECODED_LAYERS}
        redo = []
        for fault in faults:
            if fault.folder not in folders:
                self._said.append(
                    f"{fault.name}: made by other settings or another version than the last "
                    "`lavie curate`; run that again with them, or delete the folder if nothing needs it"
                )
            elif fault.folder not in decoded or self._can_decode(info, fault):
                redo.append(fault)
        return self._make(info, configured, redo)

    def _make(self, info: CorpusInfo, configured: curate.River, redo: list[Fault]) -> set[str]:
        if not redo:
            return set()
        ledger, noted = Ledger(self._store), noted_parts(self._store)
        before = {
            folder: dict(ledger.records(folder))
            for folder in map(layout.layer_folder, configured.layers.values())
        }
        for fault in redo:
            assert fault.part is not None, "every file of a layer that is compared is a part"
            on_record = ledger.mark_again(fault.folder, [fault.part])
            if fault.part in noted or not on_record:
                self._store.delete(fault.name)  # or rows of it would be taken over as they are
        try:
            curate.fill_layers(
                ledger,
                configured,
                info.num_parts,
                console=self._console,
                ray_address=self._ray_address,
            )
        except UnitsFailed as error:
            self._said.append(str(error))
        changed = set()
        for folder, records in before.items():
            after = ledger.records(folder)
            others = [part for part in records if after[part].sha256 != records[part].sha256]
            if others:
                changed.add(folder)
                self._said.append(
                    f"{folder}: {len(others)} parts came out with other bytes than they had; what was "
                    "made of them was made anew"
                )
        self.touched |= changed
        return changed

    def _can_decode(self, info: CorpusInfo, fault: Fault) -> bool:
        """Whether all sources of a part are there with the bytes that were curated; says if not."""
        assert fault.part is not None
        try:
            lost = lost_sources(self._store, info, fault.part, self._moved)
        except CorpusError as error:  # the list of its sources is what is damaged
            self._said.append(f"{fault.name}: cannot be made anew ({error})")
            return False
        if lost:
            self._said.append(
                f"{fault.name}: cannot be made anew, since {len(lost)} of its sources cannot be read "
                f"or have changed, first {lost[0]}; the part stays as it is. A film that was "
                "renamed or moved is found by its bytes: --moved-to names a folder or list to look through"
            )
        return not lost

    def _selections_of(self, changed: set[str]) -> Iterable[str]:
        """Finished selections that read a layer of which a part came out otherwise."""
        for name in self._store.folders("selections") if changed else ():
            try:
                layers = read_rules(self._store, name)["layers"].values()
            except CorpusError:  # not finished, or a fault of its own
                continue
            if changed & {layout.layer_folder(layer_id) for layer_id in layers}:
                yield name

    def _select(self, info: CorpusInfo, name: str) -> None:
        """Select again by the rules that are written down."""
        folder = layout.selection(name)
        if name in self._without_plans:
            raise TornPart(
                f"a plan under {layout.shards(name)} is damaged, which says what it may be"
            )
        try:
            rules = _rules_on_record(self._store, name)
            config = settings_from(SelectConfig, rules["config"])
        except (CorpusError, ValueError, TypeError, KeyError) as error:
            self._said.append(
                f"selection {name}: its rules are nowhere on record as they were written ({error}); run "
                f"`lavie select --name {name}` again with its rules"
            )
            return
        file = f"{folder}/{RULES}"
        written = self._store.read(file) if self._store.exists(file) else None
        try:
            select(self._store, info, name, config)
        except LavieError:
            if written is not None and not self._store.exists(file):
                self._store.write(file, written)  # the rules, for the next try
                self._unselected.add(name)
            raise
        finally:
            self.touched |= {folder}


def _rules_on_record(store: Store, name: str) -> dict[str, Any]:
    """rules.json, or, where it is damaged or gone, the rules that shards of this name were made by.

    Shards grow by the same rules only, so these are the selection's: by their manifest, or by the last plan.

    Raises:
        CorpusError: if neither is there and whole.
    """
    try:
        return read_rules(store, name)
    except CorpusError:
        for read in (lambda: [read_manifest(store, name)], lambda: read_plans(store, name)[-1:]):
            with suppress(CorpusError):
                for made in read():
                    if made.get("rules"):
                        rules: dict[str, Any] = made["rules"]
                        return rules
        raise


def lost_sources(store: Store, info: CorpusInfo, part: int, moved: Mapping[str, str]) -> list[str]:
    """Sources of a part that were decoded and cannot be decoded again to the same end.

    Args:
        store: the corpus.
        info: its contents.
        part: its number.
        moved: address of a source that is not there any more -> where the same bytes lie.
    """
    sources = read_table(store, layout.sources(part), ["uri", "size_bytes"]).to_pylist()
    expected: list[dict[str, Any]] = [{"source_sha256": None, "source_reject": None}] * len(sources)
    try:
        path = layout.layer(info.layers["probe"], part)
        expected = read_table(store, path, list(expected[0])).to_pylist()
    except CorpusError:  # the probe is what is damaged: all that is known is the length
        pass
    lost = []
    for source, probe in zip(sources, expected, strict=True):
        there = source | {"uri": moved.get(source["uri"], source["uri"])}
        if probe["source_reject"] is None and not _is_there(there, probe["source_sha256"]):
            lost.append(str(source["uri"]))
    return lost


def _is_there(source: dict[str, Any], sha256: str | None) -> bool:
    with scratch_folder("lavie-repair-") as scratch:
        size_bytes = source["size_bytes"]
        try:
            with fetched(
                source["uri"], max_bytes=max(1, size_bytes or 2**63 - 1), scratch=scratch
            ) as file:
                return sha256 in (None, file.sha256) and size_bytes in (None, file.size_bytes)
        except BadSource:
            return False


def _settings(info: CorpusInfo) -> RiverConfig:
    """The settings of the last `lavie curate`.

    Raises:
        TornPart: if they are not those of this version.
    """
    try:
        return TypeAdapter(RiverConfig).validate_python(info.settings)
    except ValidationError as error:
        raise TornPart(
            f"the settings in {layout.CORPUS} are not of this version: "
            f"{error.errors(include_url=False)[0]}"
        ) from error
