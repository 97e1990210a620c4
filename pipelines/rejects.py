"""What became of the sources, and which of the rejected ones may do better another time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow.compute as pc
from rich.console import Console

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_table
from curation.corpus.store import Store
from curation.errors import PASSING, NothingToDo

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
        if not self.num_read:
            again = "; `--retry-failed` tries again" if self.num_passing else ""
            raise NothingToDo(
                f"none of the {total} sources could be read: "
                + "; ".join(f"{reason} ({self.examples[reason][0]})" for reason in self.examples)
                + again
            )

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


def read_rejects(store: Store, info: CorpusInfo) -> Rejects:
    """Count the sources of a corpus by what became of them: one column a part."""
    found = Rejects()
    for part in range(info.num_parts):
        probe = read_table(
            store,
            layout.layer(info.layers["probe"], part),
            ["source_reject", "source_reject_detail"],
        )
        found.num_read += probe["source_reject"].null_count
        if probe["source_reject"].null_count == probe.num_rows:
            continue
        uris = read_table(store, layout.sources(part), ["uri"])["uri"]
        rejected = probe.append_column("uri", uris).filter(pc.is_valid(probe["source_reject"]))
        for row in rejected.to_pylist():
            reason = row["source_reject"]
            found.counts[reason] += 1
            examples = found.examples.setdefault(reason, [])
            if len(examples) < EXAMPLES:
                examples.append(f"{row['uri']}: {row['source_reject_detail']}")
    return found
