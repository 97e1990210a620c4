"""The workers of a run: asked of Ray, withdrawn, and moved between stages."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from pipelines.logs import level
from pipelines.nodes import Nodes, Request, has
from pipelines.pools import LiveWorker, Pool, share_workers, targets
from pipelines.stages import Stage, StageCost
from pipelines.tries import Tries
from pipelines.worker import Worker

logger = logging.getLogger(__name__)

ROUND_S = 0.5  # so often is looked at machines while workers wait for them
LEAST_ASKED = (
    4  # workers that may wait where there are none: what an autoscaler starts machines for
)
WITHDRAW_AFTER_S = 2.0  # nothing ready for so long: a worker may be about to start, let it
SAY_AFTER_S = 5.0  # a worker that starts in less has not waited
PROMISE_S = 10.0  # room that was made and is not taken in this time went to somebody else
MOST_START_S = 5.0  # what a start costs at most; the rest of the time it waited for room
MAX_FAILED_STARTS = 5  # in a row, none that succeeded among them


@dataclass(slots=True, eq=False)
class _Promise:
    """Room that is being made for one worker of a pool."""

    pool: Pool
    givers: list[LiveWorker]
    until_s: float | None = None
    """Set once the givers have gone."""


class Staff:
    """Which workers there are; the scheduler gives them units.

    Workers are asked for as long as units are ready; they wait at Ray for room, so that a machine that joins
    or a tenant that leaves is used at once. A worker stays with its pool. It goes only to make room for a
    pool that waits for room and has less than its share (`pipelines.pools.targets`): from a pool that has
    more than its own, or where it has been idle for as long as another start would take.

    Args:
        stages: of the run.
        tries: says which machines cannot do the work of a stage.
        costs: what units have taken so far.
    """

    def __init__(
        self, stages: Sequence[Stage], tries: Tries, costs: Mapping[str, StageCost]
    ) -> None:
        self._stages = stages
        self._tries = tries
        self._costs = costs
        self._nodes = Nodes({}, {})
        self._kind: tuple[bool, bool] | None = None
        self._looked_s = float("-inf")
        self._worked_s = float("-inf")
        """When there was a worker last."""
        self._promises: list[_Promise] = []
        self._retired: list[Pool] = []
        self._capped: set[str] = set()
        self._ready: Mapping[str, int] = {}
        self._left: Mapping[str, int] = {}
        self.pools: list[Pool] = []
        self.starting: dict[Any, LiveWorker] = {}
        """Answer that a worker gives once it has started -> the worker."""

    def adjust(self, ready: Mapping[str, int], left: Mapping[str, int]) -> None:
        """Ask for workers, withdraw and move them, if it is time.

        Args:
            ready: units of each stage that could be done now.
            left: units of each stage that are ready or may become so.
        """
        self._ready, self._left = ready, left
        for pool in self.pools:
            if self._num_ready(pool):
                pool.ready_at_s = time.monotonic()
        if not self._is_due():
            return
        self._looked_s = time.monotonic()
        self._look()
        shares = targets(self.pools, {p: self._work_s(p) for p in self.pools}, self._nodes)
        self._keep_promises()
        self._ask(shares)
        for pool in sorted(self.pools, key=lambda pool: len(pool.workers)):
            self._make_room(pool, shares)
            self._say_waiting(pool)
        self._ask(
            shares
        )  # before the room is free: who must not take what was promised is withdrawn
        for worker in [w for pool in self.pools for w in pool.workers]:
            if worker.is_leaving and worker.unit is None:
                self.dismiss(worker)

    def next_look_s(self, otherwise_s: float) -> float:
        """How long one may wait for something to happen before `adjust` is due."""
        waits = self.starting or self._promises
        return ROUND_S if waits else otherwise_s

    def _is_due(self) -> bool:
        unserved = (p for p in self.pools if self._num_ready(p) and not p.workers + p.pending)
        return time.monotonic() - self._looked_s >= ROUND_S or any(unserved)

    def _look(self) -> None:
        """See which machines there are; deal the stages into pools where that changes how."""
        self._nodes = Nodes.now()
        kind = (self._nodes.sum("CPU") > 0, self._nodes.sum("GPU") > 0)
        if kind == self._kind:
            return
        self._kind = kind
        for pool in self.pools:
            for worker in [*pool.pending, *pool.workers]:
                worker.is_leaving = True
                if worker.unit is None:
                    self.dismiss(worker)
        self._retired += [pool for pool in self.pools if pool.workers]
        self.pools = share_workers(self._stages, self._nodes)

    def _num_ready(self, pool: Pool) -> int:
        return sum(self._ready[name] for name in pool.names)

    def _work_s(self, pool: Pool) -> float:
        """Seconds of one worker that the pool has still to do."""
        known = [cost.unit_s for cost in self._costs.values() if cost.unit_s is not None]
        usual_s = sum(known) / len(known) if known else 1.0
        return sum(self._left[n] * (self._costs[n].unit_s or usual_s) for n in pool.names)

    def avoided(self, names: Sequence[str]) -> frozenset[str]:
        """Machines that these stages are kept off; none where there would be no other left."""
        avoided = frozenset[str]().union(*(self._tries.avoided(name) for name in names))
        avoided &= self._nodes.total.keys()
        return frozenset() if len(avoided) == len(self._nodes.total) else avoided

    def _ask(self, shares: Mapping[Pool, int]) -> None:
        """Have as many workers of each pool wait for room as could be used, and no others."""
        for pool in self.pools:
            self._ask_for(pool, shares[pool])

    def _ask_for(self, pool: Pool, share: int) -> None:
        avoided = self.avoided(pool.names)
        request = self._nodes.without(avoided).request(pool.resources)
        for worker in list(pool.pending):
            if worker.request != request or worker.kept_off != avoided:
                self.dismiss(worker)
        if time.monotonic() - pool.ready_at_s > WITHDRAW_AFTER_S:
            most = 0
        else:
            started = len(pool.workers)
            room = self._nodes.room(request) - started
            most = min(
                max(LEAST_ASKED, started, room), max(self._num_unserved(pool), len(pool.pending))
            )
            if any(promise.pool is not pool for promise in self._promises):
                most = min(most, max(0, share - started))  # or they would take what was promised
        for worker in pool.pending[most:]:
            self.dismiss(worker)
        for _ in range(most - len(pool.pending)):
            self._hire(pool, request, avoided)

    def _num_unserved(self, pool: Pool) -> int:
        """Ready units that no idle worker will take."""
        return self._num_ready(pool) - sum(worker.unit is None for worker in pool.workers)

    def _hire(self, pool: Pool, request: Request, avoided: frozenset[str]) -> None:
        self._say_capped(pool, request)
        actor = Worker.options(  # type: ignore[attr-defined]
            max_restarts=0, max_task_retries=0, **request.options, **_elsewhere(avoided)
        ).remote({stage.name: stage.job for stage in pool.stages}, level())
        worker = LiveWorker(actor, pool, request, avoided, time.monotonic())
        pool.pending.append(worker)
        self.starting[actor.node.remote()] = worker

    def started(self, reference: Any, node: str) -> None:
        """A worker has answered from this machine: it can have units."""
        worker = self.starting.pop(reference)
        pool = worker.pool
        pool.pending.remove(worker)
        pool.workers.append(worker)
        pool.failed_starts, pool.has_said = 0, False
        worker.node, worker.idle_since_s = node, time.monotonic()
        worker.cost_s = min(time.monotonic() - worker.asked_at_s, MOST_START_S)
        for promise in self._promises:
            if promise.pool is pool:
                self._promises.remove(promise)
                break

    def did_not_start(self, reference: Any, *, counts: bool) -> bool:
        """A worker died before it had started; returns whether no other is likely to.

        Args:
            reference: the answer that did not come.
            counts: whether that says something of the worker, not of its machine.
        """
        worker = self.starting[reference]
        worker.pool.failed_starts += counts
        self.dismiss(worker)
        return worker.pool.failed_starts >= MAX_FAILED_STARTS

    def is_free(self, worker: LiveWorker) -> None:
        """A worker has done its unit."""
        worker.stage, worker.unit = None, None
        worker.idle_since_s = time.monotonic()
        if worker.is_leaving:
            self.dismiss(worker)

    def dismiss(self, worker: LiveWorker) -> None:
        """End a worker, or withdraw one that waits."""
        pool = worker.pool
        if worker in pool.pending:
            pool.pending.remove(worker)
            self.starting = {r: w for r, w in self.starting.items() if w is not worker}
        else:
            pool.workers.remove(worker)
        ray.kill(worker.actor)

    def dismiss_all(self) -> None:
        """End every worker."""
        for pool in [*self.pools, *self._retired]:
            for worker in [*pool.pending, *pool.workers]:
                self.dismiss(worker)

    def _keep_promises(self) -> None:
        """Forget promises of which the room was made and nobody came."""
        now = time.monotonic()
        for promise in list(self._promises):
            if promise.until_s is None:
                if not any(giver in giver.pool.workers for giver in promise.givers):
                    promise.until_s = now + PROMISE_S
            elif now > promise.until_s:
                self._promises.remove(promise)

    def _make_room(self, pool: Pool, shares: Mapping[Pool, int]) -> None:
        """Have workers of other pools go where this one waits for room."""
        avoided = self.avoided(pool.names)
        nodes = self._nodes.without(avoided)
        request = nodes.request(pool.resources)
        if not self._num_ready(pool) or nodes.fits_now(request):
            return
        while True:
            promised = sum(promise.pool is pool for promise in self._promises)
            if promised >= len(pool.pending):
                return
            is_short = len(pool.workers) + promised < shares[pool]
            givers = self._givers(pool, nodes, request, shares if is_short else {})
            if not givers:
                return
            self._promises.append(_Promise(pool, givers))
            for giver in givers:
                giver.is_leaving = True

    def _givers(
        self, pool: Pool, nodes: Nodes, request: Request, shares: Mapping[Pool, int]
    ) -> list[LiveWorker]:
        """The fewest workers whose going makes room on one machine; idle ones rather than busy ones."""
        options = []
        for node, total in nodes.total.items():
            if has(total, request.amounts):
                chosen = self._givers_on(node, nodes.free[node], pool, request, shares)
                if chosen:
                    options.append(chosen)
        cost = {id(c): (sum(w.unit is not None for w in c), len(c)) for c in options}
        return min(options, key=lambda chosen: cost[id(chosen)], default=[])

    def _givers_on(
        self,
        node: str,
        free: Mapping[str, float],
        pool: Pool,
        request: Request,
        shares: Mapping[Pool, int],
    ) -> list[LiveWorker]:
        left, chosen = dict(free), list[LiveWorker]()
        for worker in self._dispensable(node, pool, shares):
            lacking = [n for n, asked in request.amounts.items() if left.get(n, 0.0) < asked]
            if any(name in worker.request.amounts for name in lacking):
                chosen.append(worker)
                for name, amount in worker.request.amounts.items():
                    left[name] = left.get(name, 0.0) + amount
            if has(left, request.amounts):
                return chosen
        return []

    def _dispensable(
        self, node: str, pool: Pool, shares: Mapping[Pool, int]
    ) -> Iterator[LiveWorker]:
        """Workers of others on a machine that may go: first idle ones, then those beyond a pool's share."""
        others = [other for other in self.pools if other is not pool]
        staying = {other: [w for w in other.workers if not w.is_leaving] for other in others}
        on_node = [w for other in others for w in staying[other] if w.node == node]
        yield from (worker for worker in on_node if self._is_spare(worker))
        needs_gpu = self._nodes.request(pool.resources).gpus > 0
        surplus = {other: len(staying[other]) - shares.get(other, 10**9) for other in others}
        for worker in sorted(on_node, key=lambda worker: worker.unit is not None):
            if self._num_ready(worker.pool) and not shares.get(worker.pool) and not needs_gpu:
                continue  # more pools than room: taking turns would only cost starts
            if surplus[worker.pool] > 0 and not self._is_spare(worker):
                surplus[worker.pool] -= 1
                yield worker

    def _is_spare(self, worker: LiveWorker) -> bool:
        """Whether an idle worker is not worth its room."""
        if worker.unit is not None:
            return False
        if worker.node in self.avoided(worker.pool.names):
            return True
        if self._num_ready(worker.pool):
            return False
        nothing_comes = not any(self._left[name] for name in worker.pool.names)
        all_idle = all(each.unit is None for pool in self.pools for each in pool.workers)
        idle_s = time.monotonic() - worker.idle_since_s
        return nothing_comes or all_idle or idle_s > worker.cost_s

    def _say_waiting(self, pool: Pool) -> None:
        """One line where no machine takes a worker."""
        now = time.monotonic()
        if any(other.workers for other in self.pools):
            self._worked_s = now
        if pool.has_said or pool.workers or not pool.pending:
            return
        request = pool.pending[0].request
        nobody_works = now - self._worked_s > SAY_AFTER_S
        waited_s = now - pool.pending[0].asked_at_s
        if waited_s > SAY_AFTER_S and (nobody_works or not self._nodes.room(request)):
            pool.has_said = True
            has_one = "has" if not self._nodes.room(request) else "has now"
            logger.warning(
                "waiting for a machine: none of %d %s what a worker for %s takes (%s)",
                len(self._nodes.total),
                has_one,
                pool.name,
                request,
            )

    def _say_capped(self, pool: Pool, request: Request) -> None:
        """One line where a worker gets less than it takes."""
        wanted = pool.resources
        if (request.cpus, request.memory_bytes) != (wanted.cpus, wanted.memory_bytes):
            if pool.name not in self._capped:
                logger.warning(
                    "a worker for %s takes %s and %.1f GiB of memory, more than a machine has: "
                    "it gets %s",
                    pool.name,
                    f"{wanted.cpus:g} CPUs",
                    wanted.memory_bytes / 1024**3,
                    request,
                )
            self._capped.add(pool.name)


def _elsewhere(avoided: frozenset[str]) -> dict[str, Any]:
    """Ray's options that keep an actor off some nodes."""
    # No fallback_strategy: Ray takes it as soon as the better node is merely busy.
    names = ",".join(sorted(avoided))
    return {"label_selector": {"ray.io/node-id": f"!in({names})"}} if avoided else {}
