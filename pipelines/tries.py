"""What went wrong with units, and what follows: another try, another machine, or giving up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ray.exceptions import ActorUnavailableError, RayActorError

from curation.errors import LavieError
from pipelines.stages import StageCost

MAX_ATTEMPTS = 3
"""A worker that fails three times over one unit fails of that unit or of its machine."""
MAX_LOST_NODES = 20
"""Machines come and go without a unit being to blame; one that was lost with so many is."""
MAX_UNITS_IN_A_ROW = 10
"""After so many units of one stage failed with none committed in between, it is not the units."""


class UnitsFailed(LavieError):
    """Some units could not be done on every try; all other units are committed.

    Args:
        whys: (stage, reason) -> the units that it failed over for it.
        costs: what each stage of the run took all the same.
    """

    def __init__(
        self, whys: Mapping[tuple[str, str], Sequence[int]], costs: Mapping[str, StageCost]
    ) -> None:
        self.whys = dict(whys)
        self.costs = dict(costs)
        lines = [f"  {stage} of {_parts(units)}: {why}" for (stage, why), units in whys.items()]
        super().__init__(
            f"{sum(map(len, whys.values()))} units could not be done, all else is committed:\n"
            + "\n".join(lines[:10])
            + (f"\n  and {len(lines) - 10} other reasons" if len(lines) > 10 else "")
            + "\nMend the cause and run the same command again"
        )

    @property
    def units(self) -> frozenset[int]:
        """Units of which some stage failed."""
        return frozenset(unit for units in self.whys.values() for unit in units)

    def after(self, earlier: UnitsFailed | None) -> UnitsFailed:
        """Both failures of a run that went on after the earlier one."""
        return self if earlier is None else UnitsFailed({**earlier.whys, **self.whys}, self.costs)


class Tries:
    """Counts the failed tries of units, and keeps the last reason of each."""

    def __init__(self) -> None:
        self._count: Counter[tuple[str, int]] = Counter()
        self._lost: Counter[tuple[str, int]] = Counter()
        self._why: dict[tuple[str, int], str] = {}
        self._given_up: list[tuple[str, int]] = []
        self._in_a_row: dict[str, set[int]] = defaultdict(set)
        self._avoided: dict[str, set[str]] = defaultdict(set)

    def of(self, stage: str, unit: int) -> int:
        """How often the unit failed."""
        return self._count[stage, unit]

    def failed(self, stage: str, unit: int, why: str) -> bool:
        """Count one more failure; returns whether the unit is to be tried again."""
        self._count[stage, unit] += 1
        self._why[stage, unit] = why
        self._in_a_row[stage].add(unit)
        if self._count[stage, unit] < MAX_ATTEMPTS:
            return True
        self.give_up(stage, unit)
        return False

    def lost(self, stage: str, unit: int) -> bool:
        """The unit went down with its machine; returns whether that is no fault of the unit."""
        self._lost[stage, unit] += 1
        return self._lost[stage, unit] < MAX_LOST_NODES

    def give_up(self, stage: str, unit: int, why: str | None = None) -> None:
        """Do not try the unit again in this run."""
        self._given_up.append((stage, unit))
        if why is not None:
            self._why[stage, unit] = why

    def committed(self, stage: str) -> None:
        """A unit of the stage was done."""
        self._in_a_row[stage].clear()

    def is_hopeless(self, stage: str) -> bool:
        """Whether so many units failed in a row that trying the rest would only cost time."""
        return len(self._in_a_row[stage]) >= MAX_UNITS_IN_A_ROW

    def avoid(self, stage: str, node: str) -> None:
        """Give the stage no more workers on this node while it can have them elsewhere."""
        self._avoided[stage].add(node)

    def avoided(self, stage: str) -> frozenset[str]:
        """Nodes that could not do the work of the stage."""
        return frozenset(self._avoided[stage])

    def raise_failed(self, costs: Mapping[str, StageCost]) -> None:
        """Raise `UnitsFailed`, which names the units and says why, if any was given up.

        Args:
            costs: what each stage took.
        """
        if not self._given_up:
            return
        whys: dict[tuple[str, str], list[int]] = defaultdict(list)
        for stage, unit in sorted(self._given_up):
            why = self._why.get((stage, unit), "not tried, as all before it failed")
            whys[stage, why].append(unit)
        raise UnitsFailed(whys, costs)


def is_loss_of_node(error: BaseException) -> bool:
    """Whether a worker went down with its machine, or cannot be reached: no fault of its unit."""
    if isinstance(error, ActorUnavailableError):
        return True
    told = str(error)
    return isinstance(error, RayActorError) and (error.preempted or "node has died" in told)


def describe(error: BaseException) -> str:
    """One line about what ended a unit.

    Args:
        error: what the job raised, or Ray's error where the worker did not live to say.
    """
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return f"its worker did not start: {_last_line(error)}"
    if isinstance(error, RayActorError):
        # Ray's memory monitor says this; every other text of a death lists memory as one possible cause.
        memory = ", for the node ran out of memory" if "running low on memory" in str(error) else ""
        return f"its worker died{memory}; a full disk or the kernel log of the machine may say why"
    last = _last_line(error)
    return last if isinstance(error, LavieError) else f"{type(error).__name__}: {last}"


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[-1].strip()


def _parts(units: Sequence[int]) -> str:
    named = ", ".join(map(str, units[:8])) + (", ..." if len(units) > 8 else "")
    return f"part {named}" if len(units) == 1 else f"{len(units)} parts ({named})"
