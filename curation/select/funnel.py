"""What a selection did, counted: the funnel, and what each rule does on its own.

Everything is derived from one small table: how many clips, and how long, for each set of failed
rules. Durations are summed as whole milliseconds, so that the sums do not depend on the order of
adding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus.manifest import sealed

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Some clips."""

    clips: int = 0
    """How many, pictures included."""
    images: int = 0
    """How many of them are pictures."""
    duration_ms: int = 0
    """Sum of their durations, each rounded to milliseconds."""

    @property
    def hours(self) -> float:
        """Sum of their durations in hours."""
        return self.duration_ms / MS_PER_HOUR

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            clips=self.clips + other.clips,
            images=self.images + other.images,
            duration_ms=self.duration_ms + other.duration_ms,
        )

    def to_json(self) -> dict[str, Any]:
        """Counts and hours."""
        return {"clips": self.clips, "images": self.images, "hours": round(self.hours, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rule of the funnel."""

    rule: str
    """Name of the rule."""
    allows: str
    """The allowed values, for a reader."""
    source: str
    """Where the number comes from."""
    left: Amount
    """Clips that pass this rule and all before it."""
    share_left: float
    """`left` of all clips, 0..1."""
    removed_here: Amount
    """Clips that pass all rules before it and fail this one."""
    removed_alone: Amount
    """Clips that fail it, whatever else they fail: what it would remove if it were the only rule.

    Scenes that are too short to be clips fail `scene_reject` and nothing else, here as in
    `failed_rules`: most scores are never taken of them, so no other rule is asked. Duplicates and
    limits only look at clips that pass everything before them, so theirs is `removed_here`.
    """
    removed_only: Amount
    """Clips that fail it and nothing else: what would come back without it (duplicates aside)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How many clips came in, how many were kept, and what took the others."""

    sources: int
    """Sources in the corpus."""
    sources_rejected: dict[str, int]
    """Reject reason -> sources."""
    clips: Amount
    """All clips of the corpus."""
    kept: Amount
    """Selected ones."""
    rejected: Amount
    """The others."""
    steps: tuple[Step, ...]
    """The rules in their order."""
    duplicate_groups: int
    """Groups of look-alikes; all but one clip of each are rejected."""
    tiers: dict[str, Amount]
    """Kept clips whose highest tier it is; '' for those that meet none."""
    buckets: dict[str, Amount]
    """Kept clips of each shard bucket; only buckets that hold some."""
    splits: dict[str, Amount]
    """Kept clips of 'train', 'val' and 'test'; '' for those that tie different ones together."""
    uncategorised: int | None = None
    """Kept clips that limits and weights by category pass by, having none; None where nothing is
    balanced by category."""
    skipped: tuple[Mapping[str, str], ...] = ()
    """What of the selection was left out, the corpus lacking a column: name, allows, column, station,
    source."""

    def to_json(self) -> bytes:
        """The bytes of funnel.json."""
        used = self.sources - sum(self.sources_rejected.values())
        return sealed(
            {
                "sources": {
                    "in": self.sources,
                    "used": used,
                    "rejected": self.sources_rejected,
                },
                "clips": self.clips.to_json(),
                "kept": self.kept.to_json(),
                "rejected": self.rejected.to_json(),
                "steps": [_step_json(step) for step in self.steps],
                "duplicate_groups": self.duplicate_groups,
                "tiers": {name: amount.to_json() for name, amount in self.tiers.items()},
                "buckets": {name: amount.to_json() for name, amount in self.buckets.items()},
                "splits": {name: amount.to_json() for name, amount in self.splits.items()},
                "uncategorised": self.uncategorised,
                "skipped": [dict(one) for one in self.skipped],
            }
        )


def _step_json(step: Step) -> dict[str, Any]:
    amounts = ("left", "removed_here", "removed_alone", "removed_only")
    return {
        name: getattr(step, name).to_json() if name in amounts else value
        for name, value in asdict(step).items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepName:
    """What the funnel says of one rule besides its counts."""

    rule: str
    allows: str
    source: str


def make_steps(names: Sequence[StepName], by_failed: dict[int, Amount]) -> tuple[Step, ...]:
    """The funnel's steps.

    Args:
        names: the rules in their order; rule i is bit i, rule 0 that of the scenes.
        by_failed: set of failed rules as bits -> clips that fail exactly these.
    """
    total = sum(by_failed.values(), Amount())
    steps = []
    for bit, name in enumerate(names):
        own, earlier = 1 << bit, (1 << bit) - 1
        left = _sum(by_failed, has=0, lacks=own | earlier)
        steps.append(
            Step(
                rule=name.rule,
                allows=name.allows,
                source=name.source,
                left=left,
                share_left=round(left.clips / total.clips, 9) if total.clips else 0.0,
                removed_here=_sum(by_failed, has=own, lacks=earlier),
                removed_alone=_sum(by_failed, has=own, lacks=0),
                removed_only=by_failed.get(own, Amount()),
            )
        )
    return tuple(steps)


def _sum(by_failed: dict[int, Amount], *, has: int, lacks: int) -> Amount:
    """Clips whose failed rules include all of ``has`` and none of ``lacks``."""
    amounts = (a for failed, a in by_failed.items() if failed & (has | lacks) == has)
    return sum(amounts, Amount())


def check_accounts(funnel: Funnel) -> None:
    """Assert that every clip that came in is either kept or rejected, at every step."""
    assert funnel.clips == funnel.kept + funnel.rejected, "clips in != kept + rejected"
    left = funnel.clips
    for step in funnel.steps:
        assert left == step.left + step.removed_here, f"{step.rule}: before != left + removed"
        left = step.left
    assert left == funnel.kept, "clips left after the last rule are not those kept"
    assert sum(funnel.tiers.values(), Amount()) in (funnel.kept, Amount()), "tiers != kept"
    assert sum(funnel.buckets.values(), Amount()) == funnel.kept, "buckets != kept"
    assert sum(funnel.splits.values(), Amount()) in (funnel.kept, Amount()), "splits != kept"


def count_words(words: pa.ChunkedArray) -> dict[str, int]:
    """How often each word appears, nulls aside."""
    counts = pc.value_counts(words.drop_null()).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: e["values"])}
