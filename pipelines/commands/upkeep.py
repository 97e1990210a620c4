"""status and verify: what a corpus holds, and whether all of it is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from curation.corpus.ledger import PartState
from curation.errors import LASTING, PASSING
from pipelines.commands.curation import check_name, corpus_store
from pipelines.locking import writer_of
from pipelines.progress import PartBar
from pipelines.status import Layer, Product, SelectionStatus, read_status
from pipelines.status import Status as CorpusStatus
from pipelines.verify import Fault, verify

_STATES = (PartState.MISSING, PartState.DAMAGED, PartState.AGAIN)


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
        console, store = Console(), corpus_store(self.corpus, "CORPUS")
        status = read_status(store)
        writer = writer_of(store)
        _say(console, f"{self.corpus}: {status.info.num_parts} parts")
        _say(console, f"being written by {writer}" if writer else "no run is writing it")
        for line in _lines(status):
            _say(console, line)
        console.print(_layers_table(status.layers))
        for layer in status.layers:
            if layer.fault:
                console.print(layer.fault, style="red", markup=False, soft_wrap=True)
        for selection in status.selections:
            _say(console, _selection_line(selection))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Read every byte of a corpus again: sources, layers, selections, shards and latents.

    Compared are the digests that were taken when the files were put. A sentence for each file that is
    damaged or gone; exit code 1 if there is any.
    """

    corpus: Positional[str]
    """Folder or prefix of the corpus."""
    selection: str | None = None
    """Read the verdicts, shards and latents of this selection alone; all selections by default."""

    def run(self) -> int:
        """Print what is wrong; 1 if anything is."""
        console, store = Console(), corpus_store(self.corpus, "CORPUS")
        if self.selection is not None:
            check_name(self.selection, "--selection")
        with PartBar(console) as bar:
            found = verify(store, self.selection, on_progress=bar.advance)
        for note in found.notes:
            _say(console, note)
        for fault in found.faults:
            console.print(sentence(store.root, fault), style="red", markup=False, soft_wrap=True)
        if not found.faults:
            _say(console, f"{found.num_files:,} files are as they were written")
        return 1 if found.faults else 0


def sentence(root: str, fault: Fault) -> str:
    """What is said of a fault."""
    return f"{root}/{fault.name}: {fault.what}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(status: CorpusStatus) -> list[str]:
    rejected = status.rejects.total()
    pending = status.num_sources - status.num_read - rejected
    lines = [
        f"{status.num_sources:,} sources: {status.num_read:,} read, {rejected:,} rejected"
        + (f", {pending:,} not looked at yet" if pending > 0 else "")
    ]
    for kind, words in (("for good", LASTING), ("may pass, see --retry-failed", PASSING)):
        for reason, number in sorted(status.rejects.items()):
            if reason in words:
                lines.append(f"  {reason}: {number:,} ({kind})")
    lines.append(f"{status.num_clips:,} clips, {status.hours:.3f} hours of scenes")
    if status.captions:
        shown = ", ".join(f"{n:,} {word}" for word, n in sorted(status.captions.items()))
        lines.append(f"captions: {shown}")
    return lines


def _layers_table(layers: list[Layer]) -> Table:
    table = Table()
    table.add_column("layer", no_wrap=True)
    for header in ("done", *_STATES):
        table.add_column(header, justify="right")
    table.add_column("settings")
    table.add_column("newest part", no_wrap=True)
    for layer in layers:
        done = layer.states[PartState.DONE] + layer.states[PartState.UNRECORDED]
        table.add_row(
            layer.name,
            "record damaged" if layer.fault else str(done),
            *(str(layer.states[state] or "") for state in _STATES),
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
        f"selection {selection.name}: {selection.stands}{kept}{', ' + made if made else ''}\n"
        f"  shards: {_product(selection.shards)}\n"
        f"  report: {_product(selection.report)}"
    )


def _product(product: Product) -> str:
    words = {
        "current": "the selection's own",
        "of other verdicts": "NOT this selection's: made from other verdicts",
        "unknown": "made before it was written down from which verdicts",
    }
    details = [] if product.num_clips is None else [f"{product.num_clips:,} clips"]
    if product.changed is not None:
        details.append(_time(product.changed))
    said = words.get(product.stands, product.stands)
    return f"{said}, {', '.join(details)}" if details else said
