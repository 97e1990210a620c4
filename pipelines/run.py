"""Units of work -> Ray actors: workers where there is room, bounded retries, counters.

A unit is the number of a part (or of a shard). A stage turns unit N into committed files; what it needs of
unit N are files too. So all that travels through Ray is the number of a unit and a few counters, there is
nothing to spill, and losing a worker loses no more than the unit in its hands.

Where a worker runs is Ray's to say: workers are asked for and wait until a machine has room, which is what
an autoscaler sees. A unit is given only to a worker that has started. What is ours is which stage has how
many workers (`pipelines.pools`) and what follows a failure.

Why actors and not Ray Data here: Ray Data takes a row whose worker dies natively back into the queue
without end in actor pools, stands still where it has more stages than cores, and its checkpoints lose
clips where one source becomes many (`benchmarks/ray_data.py`). An actor that runs one unit at a time tells
which unit killed it, and the count of tries is ours.

What goes wrong with a unit, be it a killed worker, a full disk or a bug, costs a try of that unit and
nothing else (`pipelines.tries`); only what concerns the whole run, a `LavieError` of a job, stops it. A
machine that is lost costs no try.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from curation.errors import LavieError, MachineFault
from pipelines.logs import facts, tell_again
from pipelines.metrics import RunMetrics
from pipelines.pools import LiveWorker, Pool
from pipelines.staff import Staff
from pipelines.stages import Record, Stage, StageCost, Watcher
from pipelines.tries import MAX_ATTEMPTS, Tries, UnitsFailed, describe, is_loss_of_node
from pipelines.worker import Job, Ran, UnitResult

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

SET_UP_BACKLOG = (
    2  # units that must wait for each worker that has a stage, before one more sets it up
)
LOOK_ROUND_S = 10.0  # while nothing is waited for, look so often whether the cluster has changed


class _Scheduler:
    """Deals ready units to workers that have started until none is left."""

    def __init__(self, stages: Sequence[Stage], watcher: Watcher, record: Record) -> None:
        self._record = record
        self._stages = {stage.name: stage for stage in stages}
        self._place = {stage.name: place for place, stage in enumerate(stages)}
        self._watcher = watcher
        self._done = {stage.name: set(stage.done) for stage in stages}
        self._waiting = {stage.name: set(stage.units) - stage.done for stage in stages}
        self._ready: dict[str, list[tuple[int, int]]] = {stage.name: [] for stage in stages}
        """Heaps of (failed tries, unit): what failed waits until all else was tried."""
        self._tries = Tries()
        self._metrics = RunMetrics()
        self._running: dict[Any, LiveWorker] = {}
        self.costs = {stage.name: StageCost() for stage in stages}
        self._staff = Staff(stages, self._tries, self.costs)

    def run(self) -> None:
        """Run every unit once, or raise what went wrong."""
        for stage in self._stages.values():
            self._watcher.start(stage.name, total=len(stage.units), done=len(stage.done))
            for unit in sorted(self._waiting[stage.name]):
                self._offer(stage, unit)
        try:
            while self._running or any(self._ready.values()):
                self._staff.adjust(self._num_ready(), self._num_left())
                self._deal()
                self._collect()
        finally:
            self._staff.dismiss_all()
        self._tries.raise_failed(self.costs)

    def _num_ready(self) -> dict[str, int]:
        return {name: len(units) for name, units in self._ready.items()}

    def _num_left(self) -> dict[str, int]:
        """Units of each stage that may still come or are ready."""
        return {name: len(self._ready[name]) + len(self._waiting[name]) for name in self._stages}

    def _offer(self, stage: Stage, unit: int) -> None:
        """Queue a unit once all that it comes after is committed."""
        if unit in self._waiting[stage.name] and all(unit in self._done[a] for a in stage.after):
            self._waiting[stage.name].discard(unit)
            self._queue(stage, unit)

    def _queue(self, stage: Stage, unit: int) -> None:
        heapq.heappush(self._ready[stage.name], (self._tries.of(stage.name, unit), unit))

    def _deal(self) -> None:
        """Give ready units to idle workers."""
        for pool in self._staff.pools:
            for worker in pool.workers:
                if worker.unit is None and not worker.is_leaving:
                    stage = self._next_stage(worker)
                    if stage is not None:
                        self._hand(worker, stage)

    def _next_stage(self, worker: LiveWorker) -> Stage | None:
        """The stage of which an idle worker gets a unit: the latest that it need not set up for little.

        A stage that it has not set up is taken where nobody has it, where many units wait for those who
        do, or where the worker would have nothing else to do.
        """
        ready = [
            stage
            for stage in worker.pool.stages
            if self._ready[stage.name] and worker.node not in self._staff.avoided([stage.name])
        ]
        at_once = [stage for stage in ready if self._is_worth_it(worker, stage)]
        return max(at_once or ready, key=lambda stage: self._place[stage.name], default=None)

    def _is_worth_it(self, worker: LiveWorker, stage: Stage) -> bool:
        if stage.name in worker.set_up:
            return True
        have = sum(stage.name in other.set_up for other in worker.pool.workers)
        return len(self._ready[stage.name]) > SET_UP_BACKLOG * have

    def _hand(self, worker: LiveWorker, stage: Stage) -> None:
        worker.stage, worker.unit = stage, heapq.heappop(self._ready[stage.name])[1]
        worker.set_up.add(stage.name)
        plan = None if stage.plans is None else stage.plans[worker.unit]
        failed = {"failed": True} if self._tries.of(stage.name, worker.unit) else {}
        reference = worker.actor.run.remote(stage.name, worker.unit, plan, **failed)
        self._running[reference] = worker

    def _collect(self) -> None:
        """Wait for a unit that ended or a worker that has started, and take in all that there are."""
        references = [*self._running, *self._staff.starting]
        if not references:
            return
        timeout_s = self._staff.next_look_s(LOOK_ROUND_S)
        if not ray.wait(references, num_returns=1, timeout=timeout_s)[0]:
            return
        ended, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ended:
            if reference in self._running:
                self._take_in(self._running.pop(reference), reference)
            else:
                self._greet(reference)

    def _greet(self, reference: Any) -> None:
        """A worker has started, or died before it had."""
        worker = self._staff.starting[reference]
        try:
            self._staff.started(reference, ray.get(reference))
        except RayError as error:
            logger.info("a worker for %s did not start: %s", worker.pool.name, error)
            if self._staff.did_not_start(reference, counts=not is_loss_of_node(error)):
                self._give_up(worker.pool, describe(error))

    def _give_up(self, pool: Pool, why: str) -> None:
        """No worker starts for these stages: all else goes on."""
        for name in pool.names:
            for _, unit in self._ready[name]:
                self._tries.give_up(name, unit, why)
            self._ready[name].clear()

    def _take_in(self, worker: LiveWorker, reference: Any) -> None:
        stage, unit = worker.stage, worker.unit
        assert stage is not None
        assert unit is not None
        try:
            ran: Ran = ray.get(reference)
        except RayError as error:
            self._staff.dismiss(worker)
            self._take_back(stage, unit, error)
            return
        worker.cost_s += ran.setup_s
        _tell(stage.name, unit, worker.node, ran)
        self._staff.is_free(worker)
        self._commit(stage, unit, ran)

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
        about = facts(stage=stage.name, part=unit)
        logger.info(
            "%s of part %d: %s", stage.name, unit, error, extra=about
        )  # the whole traceback
        if is_loss_of_node(cause) and self._tries.lost(stage.name, unit):
            lost = "%s of part %d lost its machine: it is done again"
            logger.warning(lost, stage.name, unit, extra=about)
            self._queue(stage, unit)
            return
        logger.warning("%s of part %d failed: %s", stage.name, unit, why, extra=about)
        self._metrics.failed(stage.name)
        if self._is_narrowed(stage, unit, cause, why):
            self._queue(stage, unit)
            return
        if self._tries.failed(stage.name, unit, why):
            self._queue(stage, unit)
        if self._tries.is_hopeless(stage.name):
            for _, waiting in self._ready[stage.name]:
                self._tries.give_up(stage.name, waiting)
            self._ready[stage.name].clear()

    def _is_narrowed(self, stage: Stage, unit: int, cause: BaseException, why: str) -> bool:
        """Whether a careful try has found what in the unit is to blame: then it costs the unit no try."""
        is_careful = stage.blame is not None and self._tries.of(stage.name, unit) > 0
        if not is_careful or isinstance(cause, MachineFault):
            return False
        assert stage.blame is not None
        return stage.blame(unit, why)

    def _commit(self, stage: Stage, unit: int, ran: Ran) -> None:
        result = ran.result
        self._record(result.commits)
        cost = self.costs[stage.name]
        cost.units += 1
        cost.wall_s += ran.wall_s
        cost.setup_s += ran.setup_s
        cost.cpu_s += ran.cpu_s
        cost.peak_memory_bytes = max(cost.peak_memory_bytes, ran.memory_bytes)
        cost.counts.update(result.counts)
        self._done[stage.name].add(unit)
        self._tries.committed(stage.name)
        self._metrics.committed(stage.name, ran)
        self._watcher.advance(stage.name, result.counts)
        for later in self._stages.values():
            if stage.name in later.after:
                self._offer(later, unit)


def _tell(stage: str, unit: int, node: str | None, ran: Ran) -> None:
    """Log what a worker has said of a unit, and what the unit took."""
    for line in ran.lines:
        tell_again(line, stage=stage, part=unit, node=node)
    about = {
        "stage": stage,
        "part": unit,
        "node": node,
        "wall_s": round(ran.wall_s, 3),
        "setup_s": round(ran.setup_s, 3),
        "cpu_s": round(ran.cpu_s, 3),
        "memory_bytes": ran.memory_bytes,
        "counts": dict(ran.result.counts),
    }
    logger.info("%s of part %d: %.1f s", stage, unit, ran.wall_s, extra=facts(**about))


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
