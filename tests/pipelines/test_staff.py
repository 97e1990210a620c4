"""Workers on machines that differ, come and go: real Ray nodes with made-up cores and memory."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.cluster_utils import Cluster

from curation.stations.station import Resources
from pipelines.run import Stage, StageCost, run_stages
from pipelines.tries import MAX_ATTEMPTS
from pipelines.worker import UnitResult

GIB = 1024**3
SMALL = 64 * 1024**2
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head on which nothing can run."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def add_node(cluster: Cluster) -> Iterator[Callable[..., object]]:
    """Adds a machine, which goes after the test."""
    nodes = []

    def add(num_cpus: int, **more: object) -> object:
        nodes.append(cluster.add_node(num_cpus=num_cpus, **{"memory": 64 * GIB} | more))
        return nodes[-1]

    yield add
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)
    wait_for(lambda: not node_ids(cluster))  # a killed one is believed alive for a while


class Silent:
    def start(self, stage: str, *, total: int, done: int) -> None:
        pass

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        pass


@dataclass
class Note:
    """Takes a while over a unit; notes where, in which process and beside how many others."""

    folder: Path
    seconds: float = 0.0

    def setup(self) -> None:
        (self.folder / "setups").open("a").write(f"{os.getpid()}\n")

    def run(self, unit: int, plan: object) -> UnitResult:
        node = ray.get_runtime_context().get_node_id()
        with (self.folder / f"unit-{unit}").open("a") as file:
            file.write(f"{node} {os.getpid()}\n")
        running = self.folder / f"running-{unit}"
        running.touch()
        time.sleep(self.seconds)
        beside = len(list(self.folder.glob("running-*")))
        running.unlink()
        return UnitResult(counts={"beside": beside})

    def close(self) -> None:
        pass

    def tried(self, unit: int) -> list[tuple[str, int]]:
        """Node and process of each try."""
        path = self.folder / f"unit-{unit}"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(node, int(pid)) for node, pid in map(str.split, lines)]


def stage(job: Note, num: int, *, name: str = "a", cpus: float = 1.0, **more: object) -> Stage:
    resources = Resources(**{"cpus": cpus, "memory_bytes": SMALL} | more)
    return Stage(name=name, job=job, resources=resources, units=range(num))


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not come"
        time.sleep(0.05)


class Running:
    """A run beside the test, which moves machines: Ray starts them from the main thread only."""

    def __init__(self, *stages: Stage) -> None:
        self._costs = Future[Mapping[str, StageCost]]()
        threading.Thread(target=self._run, args=(stages,), daemon=True).start()

    def _run(self, stages: tuple[Stage, ...]) -> None:
        try:
            self._costs.set_result(run_stages(stages, Silent()))
        except Exception as error:  # noqa: BLE001 - told to the test
            self._costs.set_exception(error)

    def costs(self) -> Mapping[str, StageCost]:
        return self._costs.result(PATIENCE_S)


def node_ids(cluster: Cluster) -> set[str]:
    """Live machines other than the head."""
    return {n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")}


def demand(cluster: Cluster) -> list[Mapping[str, float]]:
    """What an autoscaler is told is missing."""
    demands = get_cluster_status(cluster.address).resource_demands.ray_task_actor_demand
    return [each.bundle for of_one in demands for each in of_one.bundles_by_count]


def test_without_a_machine_the_demand_is_seen_and_the_run_goes_on_when_one_joins(
    cluster: Cluster,
    add_node: Callable[..., object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = Note(tmp_path)
    with caplog.at_level(logging.WARNING):
        running = Running(stage(job, 4))
        wait_for(lambda: demand(cluster))
        seen = demand(cluster)
        wait_for(lambda: "waiting for a machine" in caplog.text)
        time.sleep(1.0)  # says it once, however often it looks
        add_node(2)
        running.costs()
    assert {name: seen[0][name] for name in ("CPU", "memory")} == {"CPU": 1.0, "memory": SMALL}
    assert caplog.text.count("waiting for a machine: none of 1 has what a worker for a takes") == 1
    assert [len(job.tried(unit)) for unit in range(4)] == [1] * 4
    wait_for(lambda: not demand(cluster))


def test_machines_with_three_cores_each_hold_one_worker_of_two_cores(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(3)
    add_node(3)
    job = Note(tmp_path, seconds=0.3)
    costs = run_stages([stage(job, 12, cpus=2.0)], Silent())
    assert costs["a"].units == 12
    places = Counter(job.tried(unit)[0] for unit in range(12))
    assert {node for node, _ in places} == node_ids(cluster)
    assert len(places) == 2


@ray.remote(num_cpus=1)
class Tenant:
    def here(self) -> None:
        pass


def test_cores_of_a_tenant_are_left_to_it_and_used_once_it_goes(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(2)
    tenant = Tenant.remote()
    ray.get(tenant.here.remote())
    job = Note(tmp_path, seconds=0.1)
    running = Running(stage(job, 120))
    wait_for(lambda: job.tried(19))
    processes_before = {job.tried(unit)[0] for unit in range(20)}
    ray.kill(tenant)
    costs = running.costs()
    assert costs["a"].units == 120
    assert len(processes_before) == 1
    assert len({job.tried(unit)[0] for unit in range(120)}) == 2


@pytest.mark.slow
def test_a_unit_outlives_more_machines_than_it_has_tries(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job = Holding(tmp_path, hold)
    node = add_node(1)
    running = Running(stage(job, 1))
    for lost in range(1, MAX_ATTEMPTS + 1):
        wait_for(lambda n=lost: len(job.tried(0)) == n)
        cluster.remove_node(node, allow_graceful=lost % 2 == 0)  # drained, or killed
        node = add_node(1)
    wait_for(lambda: len(job.tried(0)) == MAX_ATTEMPTS + 1)
    hold.unlink()
    costs = running.costs()
    assert costs["a"].units == 1
    assert len({node for node, _ in job.tried(0)}) == MAX_ATTEMPTS + 1


@dataclass
class Holding(Note):
    """Is not done with a unit while a file is there."""

    hold: Path = Path()

    def __init__(self, folder: Path, hold: Path) -> None:
        super().__init__(folder)
        self.hold = hold

    def run(self, unit: int, plan: object) -> UnitResult:
        result = super().run(unit, plan)
        while self.hold.exists():
            time.sleep(0.02)
        return result


def test_no_more_workers_run_on_a_machine_than_its_memory_holds(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(4, memory=5 * GIB)
    job = Note(tmp_path, seconds=0.2)
    costs = run_stages([stage(job, 12, memory_bytes=2 * GIB)], Silent())
    assert costs["a"].units == 12
    assert len({job.tried(unit)[0] for unit in range(12)}) == 2


def test_a_worker_that_takes_more_than_any_machine_has_gets_what_there_is_and_is_named(
    cluster: Cluster,
    add_node: Callable[..., object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_node(2, memory=5 * GIB)
    with caplog.at_level(logging.WARNING):
        run_stages([stage(Note(tmp_path), 3, cpus=8.0, memory_bytes=24 * GIB)], Silent())
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("a worker for a takes")] == [
        (
            "a worker for a takes 8 CPUs and 24.0 GiB of memory, more than a machine has: "
            "it gets 2 CPUs, 5.0 GiB of memory"
        )
    ]


def test_a_stage_runs_only_where_its_named_resource_is(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(4)
    before = node_ids(cluster)
    add_node(1, resources={"scratch": 1})
    job = Note(tmp_path)
    run_stages([stage(job, 4, cpus=2.0, custom={"scratch": 1.0})], Silent())
    assert {node for unit in range(4) for node, _ in job.tried(unit)} == node_ids(cluster) - before


def test_eight_stages_on_two_cores_start_one_process_a_core(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(2)
    jobs, stages = list[Note](), list[Stage]()
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        jobs.append(Note(folder))
        after = (stages[-1].name,) if stages else ()
        resources = Resources(memory_bytes=SMALL)
        stages.append(
            Stage(name=folder.name, job=jobs[-1], resources=resources, units=range(20), after=after)
        )
    costs = run_stages(stages, Silent())
    assert [cost.units for cost in costs.values()] == [20] * 8
    assert len({job.tried(unit)[0] for job in jobs for unit in range(20)}) <= 2
    for job in jobs:
        pids = (job.folder / "setups").read_text().split()
        assert len(pids) == len(set(pids)) <= 2


def test_a_gpu_stage_begins_while_the_stage_before_it_has_all_cores_and_keeps_its_worker(
    cluster: Cluster, add_node: Callable[..., object], tmp_path: Path
) -> None:
    add_node(2, num_gpus=1)
    for name in ("long", "gpu"):
        (tmp_path / name).mkdir()
    long, gpu = Note(tmp_path / "long", seconds=0.2), Note(tmp_path / "gpu", seconds=0.2)
    after = ("long",)
    resources = Resources(gpus=1.0, memory_bytes=SMALL)
    watcher = Order()
    run_stages(
        [
            stage(long, 60, name="long"),
            Stage(name="gpu", job=gpu, resources=resources, units=range(60), after=after),
        ],
        watcher,
    )
    assert watcher.names.index("gpu") < 30
    assert len({gpu.tried(unit)[0] for unit in range(60)}) == 1
    assert len({long.tried(unit)[0] for unit in range(60)}) <= 4


class Order(Silent):
    """Keeps the order in which stages had units committed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        self.names.append(stage)
