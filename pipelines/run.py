"""Units of work -> Ray actors: elastic pools per stage, bounded retries, counters.

A unit is the number of a part (or of a shard). A stage turns unit N into committed files; what it needs of
unit N are files too. So all that travels through Ray is the number of a unit and a few counters, there is
nothing to spill, and losing a worker loses no more than the unit in its hands.

Why actors and not Ray Data here: Ray Data takes a row whose worker dies natively back into the queue
without end in actor pools, and its checkpoints lose clips where one source becomes many. An actor that runs
one unit at a time tells which unit killed it, and the count of tries is ours.

What goes wrong with a unit, be it a killed worker, a full disk or a bug, costs a try of that unit and
nothing else (`pipelines.tries`); only what concerns the whole run, a `LavieError` of a job, stops it.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from curation.corpus.ledger import Commit
from curation.errors import LavieError, MachineFault
from curation.stations.station import Resources
from pipelines.tries import MAX_ATTEMPTS, Tries, UnitsFailed, describe
from pipelines.worker import Job, UnitResult, Worker

logger = logging.getLogger(__name__)

__all__ = [
    "MAX_ATTEMPTS",
    "Job",
    "Stage",
    "StageCost",
    "UnitResult",
    "UnitsFailed",
    "Watcher",
    "driver_memory_bytes",
    "run_stages",
]

SWITCH_BACKLOG = (
    8  # units that must wait per worker before a busy stage gives a worker up: setup costs seconds
)
LOOK_ROUND_S = 60.0  # after so long without any unit done, look whether the cluster has changed


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


@dataclass(slots=True)
class StageCost:
    """What a stage took, summed over its workers."""

    units: int = 0
    """Units committed in this run."""
    wall_s: float = 0.0
    """Time in units, summed over workers."""
    cpu_s: float = 0.0
    """Processor time of workers and their children, user and system."""
    peak_memory_bytes: int = 0
    """Largest resident memory of one worker with its children, seen at the end of a unit."""
    counts: Counter[str] = field(default_factory=Counter)
    """Counters that the jobs returned."""


Record = Callable[[Sequence[Commit]], None]
"""Given the parts that a unit has put."""


class Watcher(Protocol):
    """Told of progress; see `pipelines.progress`."""

    def start(self, stage: str, *, total: int, done: int) -> None:
        """A stage has ``total`` units, ``done`` of them committed by earlier runs."""

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        """A stage has committed one more unit."""


@dataclass(slots=True)
class _LiveWorker:
    """One live worker: its actor, its stage, the unit that it runs now, and nodes it may not be on."""

    actor: Any
    stage: Stage
    unit: int | None = None
    kept_off: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What the cluster has now; nodes come and go."""

    cpus: float
    gpus: float
    cpus_of_largest_node: float

    @classmethod
    def now(cls, *, without: frozenset[str] = frozenset()) -> _Cluster:
        """The cluster as it is, some nodes left out."""
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        nodes = [resources for node, resources in alive.items() if node not in without]
        cpus = [resources.get("CPU", 0.0) for resources in nodes]
        gpus = sum(resources.get("GPU", 0.0) for resources in nodes)
        return cls(sum(cpus), gpus, max(cpus, default=0.0))

    def cpus_of(self, stage: Stage) -> float:
        """Cores that one worker asks for: never more than a node has, or it would wait for ever."""
        return min(stage.resources.cpus, self.cpus_of_largest_node)

    def gpus_of(self, stage: Stage) -> float:
        """GPU share that one worker asks for: none where the cluster has no GPU."""
        return stage.resources.gpus if self.gpus else 0.0


def _elsewhere(avoided: frozenset[str]) -> dict[str, Any]:
    """Ray's options that keep an actor off some nodes."""
    # No fallback_strategy: Ray takes it as soon as the better node is merely busy.
    names = ",".join(sorted(avoided))
    return {"label_selector": {"ray.io/node-id": f"!in({names})"}} if avoided else {}


class _Scheduler:
    """Deals ready units to workers until none is left.

    A stage gets a worker when it has ready units and the cluster has room. A worker stays with its stage
    while units are ready for it; without any it makes room for a stage that waits, and with many waiting
    elsewhere (`SWITCH_BACKLOG` per worker) it makes room too, so that no GPU idles behind a long decode.
    """

    def __init__(self, stages: Sequence[Stage], watcher: Watcher, record: Record) -> None:
        self._record = record
        self._stages = {stage.name: stage for stage in stages}
        self._watcher = watcher
        self._done = {stage.name: set(stage.done) for stage in stages}
        self._waiting = {stage.name: set(stage.units) - stage.done for stage in stages}
        self._ready: dict[str, list[tuple[int, int]]] = {stage.name: [] for stage in stages}
        """Heaps of (failed tries, unit): what failed waits until all else was tried."""
        self._tries = Tries()
        self._workers: dict[str, list[_LiveWorker]] = defaultdict(list)
        self._pending: dict[Any, _LiveWorker] = {}
        self.costs = {stage.name: StageCost() for stage in stages}

    def run(self) -> None:
        """Run every unit once, or raise what went wrong."""
        for stage in self._stages.values():
            self._watcher.start(stage.name, total=len(stage.units), done=len(stage.done))
            for unit in sorted(self._waiting[stage.name]):
                self._offer(stage, unit)
        try:
            while self._pending or any(self._ready.values()):
                self._deal()
                self._collect()
        finally:
            for workers in self._workers.values():
                for worker in list(workers):
                    self._dismiss(worker)
        self._tries.raise_failed()

    def _offer(self, stage: Stage, unit: int) -> None:
        """Queue a unit once all that it comes after is committed."""
        if unit in self._waiting[stage.name] and all(unit in self._done[a] for a in stage.after):
            self._waiting[stage.name].discard(unit)
            self._queue(stage, unit)

    def _queue(self, stage: Stage, unit: int) -> None:
        heapq.heappush(self._ready[stage.name], (self._tries.of(stage.name, unit), unit))

    def _deal(self) -> None:
        """Give ready units to idle workers, hiring and dismissing as needed."""
        latest_first = list(reversed(self._stages.values()))  # of equals, what is nearly finished
        for stage in sorted(latest_first, key=lambda stage: -self._backlog(stage)):
            while self._ready[stage.name]:
                worker = self._idle(stage) or self._hire(stage)
                if worker is None:
                    break
                worker.unit = heapq.heappop(self._ready[stage.name])[1]
                plan = None if stage.plans is None else stage.plans[worker.unit]
                self._pending[worker.actor.run.remote(worker.unit, plan)] = worker
        self._free_the_rest()

    def _free_the_rest(self) -> None:
        """Where a worker waits for one certain node, let none that is idle hold its place there."""
        if any(self._tries.avoided(name) for name in self._stages):
            for workers in self._workers.values():
                for worker in [each for each in workers if each.unit is None]:
                    self._dismiss(worker)

    def _backlog(self, stage: Stage) -> float:
        """Units that wait per worker, were one more hired."""
        return len(self._ready[stage.name]) / (len(self._workers[stage.name]) + 1)

    def _idle(self, stage: Stage) -> _LiveWorker | None:
        return next((worker for worker in self._workers[stage.name] if worker.unit is None), None)

    def _hire(self, stage: Stage) -> _LiveWorker | None:
        """Start one more worker, dismissing idle ones that may make room; None where there is none."""
        avoided = self._avoided(stage)
        cluster = _Cluster.now(without=avoided)
        while not self._has_room(stage, cluster):
            spare = self._spare(stage)
            if spare is None:
                return None
            self._dismiss(spare)
        actor = Worker.options(  # type: ignore[attr-defined]
            num_cpus=cluster.cpus_of(stage),
            num_gpus=cluster.gpus_of(stage),
            max_restarts=0,
            max_task_retries=0,
            **_elsewhere(avoided),
        ).remote(stage.job)
        worker = _LiveWorker(actor=actor, stage=stage, kept_off=avoided)
        self._workers[stage.name].append(worker)
        return worker

    def _avoided(self, stage: Stage) -> frozenset[str]:
        """Nodes that the stage is kept off; none where there would be no other left."""
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        avoided = self._tries.avoided(stage.name) & nodes
        return frozenset() if avoided == nodes else avoided

    def _spare(self, stage: Stage) -> _LiveWorker | None:
        """An idle worker of a stage that has nothing to do, or so much less than ``stage``."""
        for workers in self._workers.values():
            for worker in workers:
                other = self._backlog(worker.stage)
                longer = self._backlog(stage) >= SWITCH_BACKLOG * max(1.0, other)
                if worker.unit is None and (other == 0 or longer):
                    return worker
        return None

    def _has_room(self, stage: Stage, cluster: _Cluster) -> bool:
        stages = [worker.stage for workers in self._workers.values() for worker in workers] + [
            stage
        ]
        cpus = sum(cluster.cpus_of(each) for each in stages)
        gpus = sum(cluster.gpus_of(each) for each in stages)
        return cpus <= cluster.cpus and gpus <= cluster.gpus

    def _dismiss(self, worker: _LiveWorker) -> None:
        self._workers[worker.stage.name].remove(worker)
        ray.kill(worker.actor)

    def _collect(self) -> None:
        """Wait for at least one unit and take in what ended."""
        if not self._pending:
            return
        ended, _ = ray.wait(list(self._pending), num_returns=1, timeout=LOOK_ROUND_S)
        if not ended:
            self._free_the_stranded()
        for reference in ended:
            worker = self._pending.pop(reference)
            stage, unit = worker.stage, worker.unit
            assert unit is not None
            try:
                result = ray.get(reference)
            except RayError as error:
                self._dismiss(worker)
                self._take_back(stage, unit, error)
                continue
            worker.unit = None
            self._commit(stage, unit, result)

    def _free_the_stranded(self) -> None:
        """Take units from workers that wait for a node where none is left but those they are kept off."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for reference, worker in list(self._pending.items()):
            if worker.kept_off and alive <= worker.kept_off and worker.unit is not None:
                del self._pending[reference]
                self._dismiss(worker)
                self._queue(worker.stage, worker.unit)

    def _take_back(self, stage: Stage, unit: int, error: RayError) -> None:
        """Count a failed try; the unit is queued again unless it was the last one.

        Raises:
            LavieError: if what the job raised concerns the whole run.
        """
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, MachineFault):
            self._tries.avoid(stage.name, cause.node)
        elif isinstance(cause, LavieError):
            raise cause from None
        why = describe(cause)
        logger.info("%s of part %d: %s", stage.name, unit, error)  # the whole traceback
        logger.warning("%s of part %d failed: %s", stage.name, unit, why)
        if self._tries.failed(stage.name, unit, why):
            self._queue(stage, unit)
        if self._tries.is_hopeless(stage.name):
            for _, waiting in self._ready[stage.name]:
                self._tries.give_up(stage.name, waiting)
            self._ready[stage.name].clear()

    def _commit(self, stage: Stage, unit: int, ended: tuple[UnitResult, float, float, int]) -> None:
        result, wall_s, cpu_s, memory_bytes = ended
        self._record(result.commits)
        cost = self.costs[stage.name]
        cost.units += 1
        cost.wall_s += wall_s
        cost.cpu_s += cpu_s
        cost.peak_memory_bytes = max(cost.peak_memory_bytes, memory_bytes)
        cost.counts.update(result.counts)
        self._done[stage.name].add(unit)
        self._tries.committed(stage.name)
        self._watcher.advance(stage.name, result.counts)
        for later in self._stages.values():
            if stage.name in later.after:
                self._offer(later, unit)


def run_stages(
    stages: Sequence[Stage], watcher: Watcher, *, record: Record = lambda commits: None
) -> dict[str, StageCost]:
    """Run every unit of every stage that is not committed yet.

    Args:
        stages: in an order in which each comes after those that it needs.
        watcher: told of progress.
        record: given the parts that each unit has put, before other units are told that it is done.

    Raises:
        UnitsFailed: when a unit could not be done in `MAX_ATTEMPTS` tries; all else was committed first.
        LavieError: what a job raised, but for a `MachineFault`, which costs a try.
    """
    scheduler = _Scheduler(stages, watcher, record)
    scheduler.run()
    return scheduler.costs


def driver_memory_bytes() -> int:
    """Resident memory of this process, without its children."""
    return int(psutil.Process().memory_info().rss)
