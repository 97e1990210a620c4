"""What the scheduler makes of a cluster: the real one, over machines and seconds that are made up.

    python benchmarks/scheduling.py [--parts 2000] [--nodes 8] [--setup-s 30]
    python benchmarks/scheduling.py --real [--parts 160]

Without --real Ray is replaced by one in virtual time: workers wait for room in the order in which they were
asked for, take --start-s to start and --setup-s to set a stage up, and units take what STAGES says. Ideal
is the work through the cores or the GPUs, whichever is more, without any start or set-up. Driver CPU has
the simulation in it.

With --real eight empty stages run on a private Ray with two cores. PYTHONPATH=TREE measures an older tree.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import itertools
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from curation.stations.station import Resources
from pipelines import run
from pipelines.run import Stage, UnitResult, run_stages

GIB = 1024**3
IS_POOLED = importlib.util.find_spec("pipelines.staff") is not None  # not in older trees
STAGES: Mapping[str, tuple[float, float, tuple[str, ...]]] = {
    "decode": (60.0, 0.0, ()),
    "embeddings": (15.0, 1.0, ("decode",)),
    "aesthetics": (1.0, 0.0, ("embeddings",)),
    "overlay_text": (20.0, 0.0, ("decode",)),
    "safety": (12.0, 0.0, ("decode",)),
    "captions": (8.0, 0.0, ("decode",)),
    "alignment": (5.0, 0.0, ("captions", "embeddings")),
}
"""Stage -> seconds of a unit, GPUs of a worker, stages before it; every worker takes one core and 2 GiB."""


class Silent:
    """Nobody watches."""

    def start(self, stage: str, *, total: int, done: int) -> None:
        """A stage begins."""

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        """A unit is done."""


@dataclass
class Job:
    """Does nothing; says how long it takes, and notes where it was set up if it has a folder."""

    name: str
    unit_s: float = 0.0
    folder: Path | None = None

    def setup(self) -> None:
        """Note the process."""
        if self.folder is not None:
            (self.folder / f"{self.name} {os.getpid()}").touch()

    def run(self, unit: int, plan: Any = None) -> UnitResult:
        """Nothing."""
        return UnitResult()

    def close(self) -> None:
        """Nothing."""


@dataclass(eq=False)
class Actor:
    """A worker in virtual time."""

    cluster: VirtualRay
    jobs: Mapping[str, Job]
    amounts: Mapping[str, float]
    machine: str | None = None
    ready_s: float | None = None
    set_up: set[str] = field(default_factory=set)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    is_dead: bool = False

    @property
    def node(self) -> SimpleNamespace:
        """Its method `node`."""
        return SimpleNamespace(remote=lambda: self._call(object(), None, None))

    @property
    def run(self) -> SimpleNamespace:
        """Its method `run`, of this tree or of an older one."""
        return SimpleNamespace(remote=self._run)

    def _run(self, *arguments: Any) -> object:
        name = arguments[0] if IS_POOLED else next(iter(self.jobs))
        return self._call(object(), name, self.jobs[name].unit_s)

    def _call(self, reference: object, name: str | None, seconds: float | None) -> object:
        self.calls.append((reference, name, seconds))
        if self.ready_s is not None:
            self.answer()
        return reference

    def answer(self) -> None:
        """Do the calls that have come."""
        for reference, name, seconds in self.calls:
            if name is None:
                self.cluster.at(0.0, reference, self.machine)
                continue
            setup_s = 0.0 if name in self.set_up else self.cluster.setup_s
            self.cluster.num_setups += name not in self.set_up
            self.set_up.add(name)
            self.cluster.busy_s[name] += seconds
            self.cluster.first_s.setdefault(name, self.cluster.now_s)
            self.cluster.at(setup_s + seconds, reference, _ran(setup_s + seconds, setup_s))
        self.calls.clear()


def _ran(wall_s: float, setup_s: float) -> Any:
    if not IS_POOLED:
        return UnitResult(), wall_s, 0.0, 0
    from pipelines.worker import Ran

    return Ran(result=UnitResult(), wall_s=wall_s, setup_s=setup_s, cpu_s=0.0, memory_bytes=0)


class VirtualRay:
    """As much of Ray as the scheduler asks for, in virtual time."""

    def __init__(self, machines: Mapping[str, Mapping[str, float]], start_s: float, setup_s: float):
        self.machines, self.start_s, self.setup_s = machines, start_s, setup_s
        self.free = {name: dict(amounts) for name, amounts in machines.items()}
        self.now_s, self.num_starts, self.num_setups = 0.0, 0, 0
        self.busy_s: Counter[str] = Counter()
        self.first_s: dict[str, float] = {}
        self._results: dict[object, Any] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._queue: list[Actor] = []

    def at(self, seconds: float, reference: object, result: Any) -> None:
        """An answer that will come."""
        self._plan(seconds, lambda: self._results.__setitem__(reference, result))

    def _plan(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._order), event))

    def options(self, **asked: Any) -> SimpleNamespace:
        """`Worker.options`."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        amounts = {ray: asked[ours] for ours, ray in names.items() if asked.get(ours)}

        def remote(jobs: Any) -> Actor:
            actor = Actor(self, jobs if IS_POOLED else {jobs.name: jobs}, amounts)
            self._queue.append(actor)
            self._place()
            return actor

        return SimpleNamespace(remote=remote)

    def _place(self) -> None:
        for actor in list(self._queue):
            for name, free in self.free.items():
                if all(free.get(what, 0) >= n - 1e-6 for what, n in actor.amounts.items()):
                    actor.machine = name
                    self._take(actor, -1)
                    self._queue.remove(actor)
                    self._plan(self.start_s, lambda actor=actor: self._begin(actor))
                    break

    def _take(self, actor: Actor, sign: int) -> None:
        assert actor.machine is not None
        for what, n in actor.amounts.items():
            self.free[actor.machine][what] += sign * n

    def _begin(self, actor: Actor) -> None:
        if not actor.is_dead:
            self.num_starts += 1
            actor.ready_s = self.now_s
            actor.answer()

    def kill(self, actor: Actor) -> None:
        """`ray.kill`."""
        actor.is_dead = True
        if actor in self._queue:
            self._queue.remove(actor)
        elif actor.machine is not None:
            self._take(actor, 1)
            self._place()

    def wait(
        self, references: Sequence[object], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[object], list[object]]:
        """`ray.wait`: time goes on until an answer has come."""
        end_s = float("inf") if timeout is None else self.now_s + timeout
        while not any(each in self._results for each in references):
            if not self._events or self._events[0][0] > end_s:
                assert timeout is not None, "nothing will ever happen"
                self.now_s = end_s
                break
            self.now_s, _, event = heapq.heappop(self._events)
            event()
        come = [each for each in references if each in self._results][:num_returns]
        return come, []

    def get(self, reference: object) -> Any:
        """`ray.get`."""
        return self._results.pop(reference)

    def nodes(self) -> list[dict[str, Any]]:
        """`ray.nodes`."""
        return [
            {"NodeID": name, "Alive": True, "Resources": dict(amounts)}
            for name, amounts in self.machines.items()
        ]

    def cluster_resources(self) -> dict[str, float]:
        """`ray.cluster_resources`."""
        return dict(sum((Counter(amounts) for amounts in self.machines.values()), Counter()))

    def take_over(self) -> None:
        """Stand in for Ray in the scheduler."""
        run.ray = self
        if not IS_POOLED:
            run.Worker = self
            return
        from pipelines import nodes, staff

        nodes.ray = staff.ray = self
        staff.Worker = self
        nodes.available_resources_per_node = lambda: {n: dict(a) for n, a in self.free.items()}
        staff.time = SimpleNamespace(monotonic=lambda: self.now_s)


def virtual(parts: int, num_nodes: int, start_s: float, setup_s: float) -> None:
    """Run STAGES over machines of eight cores, one GPU and 48 GiB."""
    machine = {"CPU": 8.0, "GPU": 1.0, "memory": 48.0 * GIB}
    cluster = VirtualRay({f"node-{n}": machine for n in range(num_nodes)}, start_s, setup_s)
    cluster.take_over()
    stages = [
        Stage(
            name=name,
            job=Job(name, unit_s),
            resources=Resources(gpus=gpus),
            units=range(parts),
            after=after,
        )
        for name, (unit_s, gpus, after) in STAGES.items()
    ]
    cpu_s = time.process_time()
    run_stages(stages, Silent())
    cpu_s = time.process_time() - cpu_s
    units = parts * len(STAGES)
    cores, gpus = 8 * num_nodes, num_nodes
    cpu_work_s = parts * sum(unit_s for unit_s, _, _ in STAGES.values())
    gpu_work_s = parts * sum(unit_s * share for unit_s, share, _ in STAGES.values())
    ideal_s = max(cpu_work_s / cores, gpu_work_s / gpus)
    gpu_began_s = min(cluster.first_s[name] for name, (_, share, _) in STAGES.items() if share)
    print(f"{units:,} units, {cores} cores, {gpus} GPUs: {cluster.now_s:,.0f} s")
    print(f"wall over ideal       {cluster.now_s / ideal_s:.3f}")
    print(
        f"processes started     {cluster.num_starts:,}  ({cluster.num_starts / cores:.2f} a core)"
    )
    print(
        f"stages set up         {cluster.num_setups:,}  ({cluster.num_setups / units:.4f} a unit)"
    )
    print(f"GPU stage begins at   {gpu_began_s / cluster.now_s:.1%} of the time")
    print(f"GPUs idle             {1 - gpu_work_s / gpus / cluster.now_s:.1%} of the time")
    print(f"GPUs idle, ideally    {1 - gpu_work_s / gpus / ideal_s:.1%}")
    print(f"driver CPU            {cpu_s / units * 1000:.2f} ms a unit")
    print(
        f"peak memory           {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )


def real(parts: int) -> None:
    """Run eight empty stages on two cores."""
    if IS_POOLED:
        from pipelines.ray_cluster import start_ray
    else:
        start_ray = run.start_ray
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages: list[Stage] = []
        for number in range(8):
            stages.append(
                Stage(
                    name=f"stage {number}",
                    job=Job(f"stage {number}", folder=folder),
                    resources=Resources(memory_bytes=256 * 1024**2),
                    units=range(parts),
                    after=(stages[-1].name,) if stages else (),
                )
            )
        start_ray(num_cpus=2)
        begin, cpu_begin = time.monotonic(), time.process_time()
        run_stages(stages, Silent())
        wall_s, cpu_s = time.monotonic() - begin, time.process_time() - cpu_begin
        setups = [path.name.rsplit(" ", 1)[1] for path in folder.iterdir()]
    print(f"{parts} parts through eight empty stages: {wall_s:.1f} s, {parts / wall_s:.1f} parts/s")
    print(f"processes {len(set(setups))}, stages set up {len(setups)}")
    print(f"driver CPU {cpu_s / parts / 8 * 1000:.2f} ms a unit")


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", type=int)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--start-s", type=float, default=2.0)
    parser.add_argument("--setup-s", type=float, default=30.0)
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()
    if given.real:
        real(given.parts or 160)
    else:
        virtual(given.parts or 2000, given.nodes, given.start_s, given.setup_s)


if __name__ == "__main__":
    main()
