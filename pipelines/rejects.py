"""What became of the sources, and which of the rejected ones may do better another time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from curation.corpus import layout
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_sources
from curation.corpus.shards import read_index, read_manifest
from curation.corpus.store import Store
from curation.errors import PASSING, NothingToDo

if TYPE_CHECKING:  # Ray, which `lavie status` need not wait for
    from pipelines.tries import UnitsFailed

EXAMPLES = 10


@dataclass(slots=True)
class Rejects:
    """Sources of a corpus by what became of them."""

    num_read: int = 0
    """Sources that were decoded."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rejected sources of each reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Up to `EXAMPLES` of each reason as 'uri: what was seen'."""

    num_not_listed: int = 0
    """Sources of the corpus that this run's list does not name."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """Sources that were refused, for they are not the files that were curated -> what differs."""
    renewed: Mapping[str, str] = field(default_factory=dict)
    """Rejected sources that are other files now, and were not tried again -> what differs."""
    failed: UnitsFailed | None = None
    """Parts that could not be done in this run, and why; their sources may be counted here or not."""

    @property
    def num_passing(self) -> int:
        """Rejected sources that another try may read."""
        return sum(n for reason, n in self.counts.items() if reason in PASSING)

    def say(self, console: Console) -> None:
        """Print how many sources were read, and how many rejected for which reason.

        Raises:
            NothingToDo: if not one could be read.
        """
        num_rejected = self.counts.total()
        total = self.num_read + num_rejected
        console.print(f"{total} sources: {self.num_read} read, {num_rejected} rejected")
        for reason, count in sorted(self.counts.items()):
            console.print(f"  {reason}: {count}, such as {self.examples[reason][0]}", markup=False)
        if not self.num_read and self.failed is not None:
            raise self.failed
        if not self.num_read:
            again = "; `--retry-failed` tries again" if self.num_passing else ""
            raise NothingToDo(
                f"none of the {total} sources could be read: "
                + "; ".join(f"{reason} ({self.examples[reason][0]})" for reason in self.examples)
                + again
            )

    def say_not_listed(self, console: Console) -> None:
        """Print how many sources of the corpus this run did not name, if there are any."""
        if self.num_not_listed:
            console.print(
                f"{self.num_not_listed} of the corpus's {self.num_read + self.counts.total()} sources are "
                "not in this list; they stay, and `lavie remove` takes them out",
                soft_wrap=True,
                highlight=False,
            )

    def say_changed(self, console: Console) -> None:
        """Print the sources that were refused and what to do, if there are any."""
        if not self.changed:
            return
        console.print(
            f"{len(self.changed)} sources were refused, for they are not the files that were curated; "
            "what was curated of the old ones stays. Give each new file another name, so that it becomes "
            "a source of its own, or put the old one back, or curate into a new corpus:",
            soft_wrap=True,
            highlight=False,
        )
        _say_some(self.changed, console)

    def say_changes(self, console: Console) -> None:
        """Print all sources that are other files now."""
        self.say_renewed(console)
        self.say_changed(console)

    def say_renewed(self, console: Console) -> None:
        """Print the rejected sources that are other files now, if there are any."""
        if not self.renewed:
            return
        console.print(
            f"{len(self.renewed)} sources that were rejected are other files now, such as those that were "
            "still being uploaded; the same command with --retry-failed reads them:",
            soft_wrap=True,
            highlight=False,
        )
        _say_some(self.renewed, console)

    def say_passing(self, console: Console) -> None:
        """Print the rejected sources that another try may read, if there are any."""
        if not self.num_passing:
            return
        console.print(
            f"{self.num_passing} sources were rejected for reasons that may pass; the same command "
            "with --retry-failed tries just those again:",
            soft_wrap=True,
        )
        for reason in sorted(self.counts.keys() & PASSING):
            console.print(f"  {reason} ({PASSING[reason]}): {self.counts[reason]}", markup=False)
            for example in self.examples[reason]:
                console.print(f"    {example}", markup=False, soft_wrap=True, highlight=False)
            if self.counts[reason] > EXAMPLES:
                console.print(f"    and {self.counts[reason] - EXAMPLES} more")


def _say_some(sources: Mapping[str, str], console: Console) -> None:
    """The first sources, each with what is said of it."""
    for uri, what in list(sources.items())[:EXAMPLES]:
        console.print(f"  {uri}: {what}", markup=False, soft_wrap=True, highlight=False)
    if len(sources) > EXAMPLES:
        console.print(f"  and {len(sources) - EXAMPLES} more")


def read_rejects(ledger: Ledger, info: CorpusInfo) -> Rejects:
    """Count the sources of a corpus by what became of them; parts are read for the examples only."""
    folder = layout.layer_folder(info.layers["probe"])
    counts = ledger.values(folder, "source_reject")
    num_read = counts.pop("", 0)
    examples = {reason: _examples(ledger, info, reason) for reason in sorted(counts)}
    return Rejects(num_read=num_read, counts=counts, examples=examples)


def num_to_cut_again(store: Store, selection: str) -> int:
    """Clips that could not be cut for reasons that may pass, as the manifest of the shards counts them."""
    if not store.exists(layout.shard_manifest(selection)):
        return 0
    return passing_failures(read_manifest(store, selection))


def passing_failures(manifest: Mapping[str, Any]) -> int:
    """As `num_to_cut_again`, of a manifest that was read."""
    return sum(n for reason, n in manifest.get("failed", {}).items() if reason in PASSING)


def say_failed_clips(store: Store, selection: str, console: Console) -> int:
    """Print the selected clips that another export may cut, if there are any; returns how many."""
    columns = ["clip_id", "export_reject", "export_reject_detail"]
    index = read_index(store, selection, columns, failed=True)
    failed = index.filter(pc.is_in(index["export_reject"], value_set=pa.array(list(PASSING))))
    if failed.num_rows:
        console.print(
            f"{failed.num_rows} selected clips could not be cut for reasons that may pass; the same "
            "command with --retry-failed tries just those again:",
            soft_wrap=True,
        )
    for reason in sorted(pc.unique(failed["export_reject"]).to_pylist()):
        rows = failed.filter(pc.equal(failed["export_reject"], reason)).to_pylist()
        console.print(f"  {reason} ({PASSING[reason]}): {len(rows)}", markup=False)
        for row in rows[:EXAMPLES]:
            line = f"    {row['clip_id']}: {row['export_reject_detail']}"
            console.print(line, markup=False, soft_wrap=True, highlight=False)
        if len(rows) > EXAMPLES:
            console.print(f"    and {len(rows) - EXAMPLES} more")
        if reason == "not_found":
            console.print(
                f"    a film that was renamed or moved is found by its bytes: `lavie export {store.root} "
                f"--selection {selection} --retry-failed --moved-to PLACE`, a folder, file or list",
                markup=False,
                soft_wrap=True,
                highlight=False,
            )
    return failed.num_rows


def _examples(ledger: Ledger, info: CorpusInfo, reason: str) -> list[str]:
    """The first sources that were rejected for a reason."""
    probe_id = info.layers["probe"]
    found: list[str] = []
    for part, record in sorted(ledger.records(layout.layer_folder(probe_id)).items()):
        if len(found) < EXAMPLES and record.counts.get(f"source_reject={reason}"):
            columns = ["uri", "source_reject", "source_reject_detail"]
            sources = read_sources(ledger.store, info.layers, part, columns)
            rows = sources.filter(pc.equal(sources["source_reject"], reason))
            found += [f"{row['uri']}: {row['source_reject_detail']}" for row in rows.to_pylist()]
    return found[:EXAMPLES]
