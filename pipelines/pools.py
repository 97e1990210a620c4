"""Which stages share worker processes, and how many workers each set of stages should have.

Stages that ask for the same cores live together in one process as far as a machine's memory goes: each is
set up once in it and stays, so that going from one stage to the next costs nothing. A stage on a GPU has
workers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curation.stations.station import Resources
from pipelines.nodes import Nodes, Request
from pipelines.stages import Stage

KEEP_AHEAD = 2.0
"""Work that a set of stages without workers must have for each second of one that has some, before it
takes their place: else two with equal work would take turns for ever."""


@dataclass(slots=True, eq=False)
class LiveWorker:
    """One worker: its actor, what it asked for, where it is, what it does."""

    actor: Any
    pool: Pool
    request: Request
    kept_off: frozenset[str]
    """Machines that it must not be on."""
    asked_at_s: float
    node: str | None = None
    """Machine that it has started on; None while it waits for one."""
    stage: Stage | None = None
    unit: int | None = None
    """In its hands; None while idle."""
    idle_since_s: float = 0.0
    cost_s: float = 0.0
    """What another one like it would cost: its start, and what it has set up."""
    set_up: set[str] = field(default_factory=set)
    """Stages that it has set up."""
    is_leaving: bool = False
    """Whether it goes when its unit is done."""


@dataclass(slots=True, eq=False)
class Pool:
    """Stages that share workers."""

    stages: tuple[Stage, ...]
    """In the order of the river."""
    resources: Resources
    """What one worker takes; memory for all stages together."""
    workers: list[LiveWorker] = field(default_factory=list)
    """Those that have started."""
    pending: list[LiveWorker] = field(default_factory=list)
    """Those that wait for room, or for their process."""
    ready_at_s: float = 0.0
    """When a unit was last ready for it."""
    failed_starts: int = 0
    """Workers that died before they had started, since the last one that did start."""
    has_said: bool = False
    """Whether the run has said that it waits for a machine."""

    @property
    def name(self) -> str:
        """Such as 'decode' or 'safety, taxonomy'."""
        return ", ".join(stage.name for stage in self.stages)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its stages."""
        return tuple(stage.name for stage in self.stages)


def share_workers(stages: Sequence[Stage], nodes: Nodes) -> list[Pool]:
    """Put stages that ask for the same into one pool, as long as their memory fits together.

    A worker may have the part of a machine's memory that it has of its cores, on the average of the
    machines. A stage that needs more than that stays alone.
    """
    pools: list[Pool] = []
    cpus, memory = nodes.sum("CPU"), nodes.sum("memory")
    for stage in stages:
        room_bytes = memory / cpus * stage.resources.cpus if cpus else 0.0
        on_gpu = stage.resources.gpus > 0 and nodes.sum("GPU") > 0
        for pool in pools if not on_gpu else []:
            together = pool.resources.memory_bytes + stage.resources.memory_bytes
            joined = replace(pool.resources, memory_bytes=together)
            alike = replace(stage.resources, memory_bytes=together, gpus=joined.gpus) == joined
            if alike and together <= room_bytes and not (joined.gpus and nodes.sum("GPU")):
                pool.stages, pool.resources = (*pool.stages, stage), joined
                break
        else:
            pools.append(Pool((stage,), stage.resources))
    return pools


def targets(pools: Sequence[Pool], work_s: Mapping[Pool, float], nodes: Nodes) -> dict[Pool, int]:
    """How many workers each pool should have, for all of them to end at the same time.

    Pools on GPUs come first: their cores are few and their machines dear. Where there are more pools than
    room, those with most work have it, and keep it (`KEEP_AHEAD`).

    Args:
        pools: all of them.
        work_s: seconds of one worker that a pool has still to do.
        nodes: the cluster.
    """
    requests = {pool: nodes.request(pool.resources) for pool in pools}
    cpus_left, gpus = nodes.sum("CPU"), nodes.sum("GPU")
    cpu_s = sum(work_s[pool] * requests[pool].cpus for pool in pools)
    gpu_s = sum(work_s[pool] * requests[pool].gpus for pool in pools)
    end_s = max(cpu_s / cpus_left if cpus_left else 0.0, gpu_s / gpus if gpus else 0.0)
    found = {}
    for pool in sorted(pools, key=lambda pool: _claim(pool, requests[pool], work_s[pool])):
        if not work_s[pool]:
            found[pool] = 0
            continue
        wanted = max(1, round(work_s[pool] / end_s)) if end_s else 1
        room = int((cpus_left + 1e-6) // requests[pool].cpus)
        found[pool] = min(wanted, room, nodes.room(requests[pool]))
        cpus_left -= found[pool] * requests[pool].cpus
    return found


def _claim(pool: Pool, request: Request, work_s: float) -> tuple[bool, float]:
    return not request.gpus, -work_s * (KEEP_AHEAD if pool.workers else 1.0)
