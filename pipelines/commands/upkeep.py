"""status and verify: what a corpus holds, and whether all of it is as it was written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, UseAppendAction, arg

from curation.corpus import layout
from curation.corpus.ledger import PartState
from curation.corpus.manifest import read_corpus
from curation.corpus.removal import read_removed
from curation.corpus.removal_proof import Traces, find_traces
from curation.corpus.store import Store
from curation.errors import LASTING, PASSING, CorpusError, RemovalUnfinished, UsageError
from pipelines import advice
from pipelines.commands.removal import read_names
from pipelines.commands.steps import check_name
from pipelines.findings import Fault, Findings
from pipelines.locking import locked, writer_of
from pipelines.places import store_at
from pipelines.progress import PartBar
from pipelines.status import OTHER, Layer, Product, SelectionStatus, read_status
from pipelines.status import Status as CorpusStatus
from pipelines.verify import verify

_STATES = (PartState.UNRECORDED, PartState.MISSING, PartState.DAMAGED, PartState.AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Say what a corpus holds, how far each layer is, and what its selections were made into.

    No part is read, so it answers at once, also while a run is writing. Damage inside a file of the right
    length is found by `lavie verify`.
    """

    corpus: Positional[str]
    """Folder or prefix of the corpus."""

    def run(self) -> int:
        """Print sources, layers and selections."""
        console, store = Console(), store_at(self.corpus, "CORPUS")
        status = read_status(store)
        writer = writer_of(store)
        _say(console, f"{self.corpus}: {status.info.num_parts} parts")
        _say(console, f"being written by {writer}" if writer else "no run is writing it")
        if (fault := _fault_of_removal(store)) is not None:
            console.print(str(fault), style="red", markup=False, soft_wrap=True)
        for line in _lines(store, status):
            _say(console, line)
        console.print(_layers_table(status.layers))
        for layer in status.layers:
            if layer.fault:
                console.print(layer.fault, style="red", markup=False, soft_wrap=True)
        if status.gap:
            _say(
                console,
                f"not complete: {status.gap}; {advice.curate_again(status.info)} makes what is missing",
            )
        for selection in status.selections:
            _say(console, _selection_line(selection))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Read every byte of a corpus again: sources, layers, selections, shards and latents.

    Compared are the digests that were taken when the files were put. A sentence for each file that is
    damaged or gone, and for all that is not finished though no run is writing; exit code 1 if there is any.
    """

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    selection: str | None = None
    """Read the verdicts, shards and latents of this selection alone; all selections by default."""
    repair: bool = False
    """Make what is damaged or missing anew from what it was made of, and leave all else as it is."""
    ray_address: str = "local"
    """Where repairs run: 'local' starts a private Ray on this machine; 'auto' or an address joins a
    cluster."""
    moved_to: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PLACE")] = ()
    """With --repair: a folder, file or list to look through for films that were renamed or moved since they
    were curated; they are told by their bytes. May be given again."""
    removed: str | None = None
    """Instead, prove that the sources or clips of this list, as it was given to `lavie remove`, are in no
    file of the corpus any more: every file is looked into."""

    def run(self) -> int:
        """Print what is wrong, repair it if asked to; 1 if anything is left."""
        console, store = Console(), store_at(self.corpus, "CORPUS")
        if self.removed is not None:
            if self.repair or self.selection is not None:
                flag = "--repair" if self.repair else "--selection"
                raise UsageError(
                    f"--removed: looks into every file and mends none: leave out {flag}"
                )
            return self._prove(console, store, read_names(self.removed, "--removed"))
        if self.moved_to and not self.repair:
            raise UsageError("--moved-to: says where to repair from: give --repair too")
        if self.selection is not None:
            check_name(self.selection, "--selection")
            _check_there(store, self.selection)
        if not self.repair:
            writer = writer_of(store)
            found = self._look(console, store)
            if found.unfinished and (writer := writer or writer_of(store)):
                _say(console, f"being written by {writer}")
            return 1 if found.faults or (found.unfinished and not writer) else 0
        if not store.files(layout.SOURCES):
            read_corpus(store)  # says so: a mistyped name does not become a folder
        with locked(store) as held:
            found = self._look(console, held)
            if not found.faults and not found.unfinished:
                return 0
            if isinstance(_fault_of_removal(held), RemovalUnfinished):
                return 1  # it was said; a repair would bring back what is to go
            return self._repair(console, held, found)

    def _prove(self, console: Console, store: Store, names: list[frozenset[str]]) -> int:
        """Look into every file for what was removed under some names, and for the names themselves."""
        read_corpus(store)  # a mistyped name is no proof
        removed = read_removed(store)
        unknown = [name for name in names if not name & (removed.uris | removed.clip_ids)]
        traces = Traces.of(removed, named=frozenset().union(*names))
        traces = replace(traces, texts=traces.texts.union(*names))
        found = list(find_traces(store, traces))
        for line in found:
            console.print(line, style="red", markup=False, soft_wrap=True)
        if removed.unfinished is not None:
            _say(
                console,
                f"the last removal was interrupted: `lavie remove {self.corpus}` goes on with it",
            )
        if unknown:
            console.print(
                f"{len(unknown)} of the {len(names)} names were never removed from this corpus, such as "
                f"{min(unknown[0])}",
                style="red",
                markup=False,
                soft_wrap=True,
            )
        if not found:
            _say(
                console,
                f"every file was looked into: nothing is left of {len(names)} names, nor of what was "
                f"removed with them ({len(traces.texts)} addresses, digests and clip ids, "
                f"{len(traces.media_sha256)} media files)",
            )
        return 1 if found or unknown or removed.unfinished is not None else 0

    def _look(self, console: Console, store: Store) -> Findings:
        with PartBar(console) as bar:
            found = verify(store, self.selection, on_progress=bar.advance)
        _say_findings(console, store, found)
        return found

    def _repair(self, console: Console, store: Store, found: Findings) -> int:
        from pipelines.repair import repair  # Ray and all stations, which a look needs not

        repaired = repair(
            store, found, console=console, ray_address=self.ray_address, moved_to=self.moved_to
        )
        _say(console, "after the repair:")
        for line in repaired.said:
            _say(console, line)
        _say_findings(console, store, repaired.left)
        return 1 if repaired.left.faults or repaired.left.unfinished else 0


def _fault_of_removal(store: Store) -> CorpusError | None:
    """Why nothing is to be made of the corpus: a removal has not ended, or its record is damaged."""
    try:
        read_removed(store).check_finished()
    except CorpusError as error:
        return error
    return None


def _check_there(store: Store, selection: str) -> None:
    """Refuse the name of a selection of which there is nothing to look at."""
    places = (layout.selection(selection), layout.shards(selection), f"encoded/{selection}")
    if not any(store.files(place, recursive=True) for place in places):
        known = ", ".join(store.folders("selections")) or "none"
        raise UsageError(
            f"--selection: {store.root} has no selection {selection!r} (it has {known})"
        )


def _say_findings(console: Console, store: Store, found: Findings) -> None:
    for note in found.notes:
        _say(console, note)
    for one in found.unfinished:
        console.print(f"{one.folder}: {one.what}", style="yellow", markup=False, soft_wrap=True)
    for fault in found.faults:
        console.print(sentence(store.root, fault), style="red", markup=False, soft_wrap=True)
    if not found.faults:
        more = "; not all is finished" if found.unfinished else ""
        _say(console, f"{found.num_files:,} files are as they were written{more}")


def sentence(root: str, fault: Fault) -> str:
    """What is said of a fault."""
    return f"{root}/{fault.name}: {fault.what}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(store: Store, status: CorpusStatus) -> list[str]:
    rejected = status.rejects.total()
    pending = status.num_sources - status.num_read - rejected
    unseen = "not looked at yet, or on no record" if status.num_unrecorded else "not looked at yet"
    lines = [
        f"{status.num_sources:,} sources: {status.num_read:,} read, {rejected:,} rejected"
        + (f", {pending:,} {unseen}" if pending > 0 else "")
    ]
    for kind, words in (("for good", LASTING), ("may pass, see --retry-failed", PASSING)):
        for reason, number in sorted(status.rejects.items()):
            if reason in words:
                lines.append(f"  {reason}: {number:,} ({kind})")
    if status.info.num_refused:
        lines.append(
            f"{status.info.num_refused:,} sources of the last run's list were refused, for they are not the "
            "files that were curated; its command with --dry-run names them"
        )
    lines.append(f"{status.num_clips:,} clips, {status.hours:.3f} hours of scenes")
    if status.num_unrecorded:
        lines.append(
            f"not in these counts: what lies in parts on no record, {status.num_unrecorded:,} of a layer at "
            f"most, as a run ended before it wrote them down; due: {advice.curate_again(status.info)}, or "
            f"{advice.repair(store)}, which records them"
        )
    if status.captions:
        shown = ", ".join(f"{n:,} {word}" for word, n in sorted(status.captions.items()))
        lines.append(f"captions: {shown}")
    return lines


def _layers_table(layers: list[Layer]) -> Table:
    """A row a layer; of states other than done, those that a part is in, so that names keep their room."""
    states = [state for state in _STATES if any(layer.states[state] for layer in layers)]
    table = Table()
    table.add_column("layer", no_wrap=True)
    for header in ("done", *states):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("settings", no_wrap=True)
    table.add_column("newest part", no_wrap=True)
    for layer in layers:
        table.add_row(
            layer.name,
            "record damaged" if layer.fault else str(layer.states[PartState.DONE]),
            *(str(layer.states[state] or "") for state in states),
            "current" if layer.is_current else "earlier",
            _time(layer.changed),
        )
    return table


def _time(when: datetime | None) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC") if when is not None else ""


def _selection_line(selection: SelectionStatus) -> str:
    kept = ""
    if selection.kept:
        kept = f", keeps {selection.kept['clips']:,} clips ({selection.kept['hours']:.3f} h)"
    made = _time(selection.changed)
    return (
        f"selection {selection.name}: {selection.stands}{kept}{', ' + made if made else ''}"
        f"{_due(selection.due)}\n"
        f"  shards: {_product(selection.shards)}\n"
        f"  report: {_product(selection.report)}"
    )


def _product(product: Product) -> str:
    words = {
        "current": "the selection's own",
        OTHER: "NOT this selection's: made from other verdicts",
        "unknown": "made before it was written down from which verdicts",
    }
    details = [] if product.num_clips is None else [f"{product.num_clips:,} clips"]
    if product.num_to_cut_again:
        details.append(
            f"{product.num_to_cut_again:,} more may be cut by `lavie export --retry-failed`"
        )
    if product.changed is not None:
        details.append(_time(product.changed))
    said = ", ".join([words.get(product.stands, product.stands), *details])
    return said + _due(product.due)


def _due(command: str) -> str:
    return f"; due: {command}" if command else ""
