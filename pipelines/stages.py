"""What a run is made of: stages over units, and what each of them took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from curation.corpus.ledger import Commit
from curation.stations.station import Resources
from pipelines.worker import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One kind of work over many units."""

    name: str
    """What progress and errors call it."""
    job: Job
    """Made here, set up and run in the workers."""
    resources: Resources
    """What one worker takes."""
    units: Sequence[int]
    """All units, finished ones included."""
    done: frozenset[int] = frozenset()
    """Units that are committed already."""
    after: tuple[str, ...] = ()
    """Stages that must have committed the same unit before."""
    plans: Sequence[Any] | None = None
    """A few numbers for each unit, by its number, where the number alone does not say what to do."""
    blame: Callable[[int, str], bool] | None = None
    """Asked when a careful try of a unit failed, and why: whether it was found what in the unit is to
    blame, so that the next try will get further. The job is then a `pipelines.worker.CarefulJob`."""


@dataclass(slots=True)
class StageCost:
    """What a stage took, summed over its workers."""

    units: int = 0
    """Units committed in this run."""
    wall_s: float = 0.0
    """Time in units, summed over workers; what setting up took is in it."""
    setup_s: float = 0.0
    """Time of setting up, summed over workers."""
    cpu_s: float = 0.0
    """Processor time of workers and their children, user and system."""
    peak_memory_bytes: int = 0
    """Largest resident memory of one worker with its children, seen at the end of a unit; whatever else
    shares its process is in it."""
    counts: Counter[str] = field(default_factory=Counter)
    """Counters that the jobs returned."""

    @property
    def unit_s(self) -> float | None:
        """Mean seconds of one unit without setting up; None before the first is done."""
        return max(self.wall_s - self.setup_s, 1e-4) / self.units if self.units else None


Record = Callable[[Sequence[Commit]], None]
"""Given the parts that a unit has put."""


class Watcher(Protocol):
    """Told of progress; see `pipelines.progress`."""

    def start(self, stage: str, *, total: int, done: int) -> None:
        """A stage has ``total`` units, ``done`` of them committed by earlier runs."""

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        """A stage has committed one more unit."""
