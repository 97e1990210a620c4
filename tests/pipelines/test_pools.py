"""Which stages share workers, and how many each should have."""

from __future__ import annotations

from curation.stations.station import Resources
from pipelines.nodes import Nodes
from pipelines.pools import Pool, share_workers, targets
from pipelines.stages import Stage
from pipelines.worker import UnitResult

GIB = 1024**3


class Nothing:
    def setup(self) -> None:
        pass

    def run(self, unit: int, plan: object) -> UnitResult:
        return UnitResult()

    def close(self) -> None:
        pass


def stage(name: str, gib: float = 2.0, *, cpus: float = 1.0, gpus: float = 0.0) -> Stage:
    resources = Resources(cpus=cpus, gpus=gpus, memory_bytes=int(gib * GIB))
    return Stage(name=name, job=Nothing(), resources=resources, units=range(10))


def machines(num: int, *, cpus: float, gib: float, gpus: float = 0.0) -> Nodes:
    each = {"CPU": cpus, "memory": gib * GIB, "GPU": gpus}
    total = {f"n{number}": each for number in range(num)}
    return Nodes(total, total)


def names(pools: list[Pool]) -> list[tuple[str, ...]]:
    return [pool.names for pool in pools]


def test_stages_share_a_process_as_far_as_its_part_of_the_memory_goes() -> None:
    stages = [stage("a"), stage("b"), stage("c"), stage("d", 1.0)]
    assert names(share_workers(stages, machines(2, cpus=4, gib=64))) == [("a", "b", "c", "d")]
    pools = share_workers(stages, machines(2, cpus=4, gib=20))  # 5 GiB a core
    assert names(pools) == [("a", "b", "d"), ("c",)]
    assert [pool.resources.memory_bytes for pool in pools] == [5 * GIB, 2 * GIB]


def test_stages_with_other_cores_or_on_a_gpu_have_workers_of_their_own() -> None:
    stages = [stage("a", cpus=2), stage("b"), stage("c", gpus=0.5), stage("d", gpus=0.5)]
    with_gpu = machines(1, cpus=4, gib=64, gpus=1)
    assert names(share_workers(stages, with_gpu)) == [("a",), ("b",), ("c",), ("d",)]
    without = share_workers(stages, machines(1, cpus=4, gib=64))
    assert names(without) == [("a",), ("b", "c", "d")]


def test_a_stage_that_needs_more_memory_than_its_cores_have_is_alone() -> None:
    pools = share_workers([stage("a", 24), stage("b", 1)], machines(1, cpus=4, gib=16))
    assert names(pools) == [("a",), ("b",)]


def test_workers_are_shared_out_so_that_all_end_together() -> None:
    nodes = machines(4, cpus=16, gib=64)
    pools = [Pool((stage("a"),), Resources()), Pool((stage("b"),), Resources())]
    assert targets(pools, {pools[0]: 3000.0, pools[1]: 1000.0}, nodes) == {
        pools[0]: 48,
        pools[1]: 16,
    }


def test_a_gpu_that_is_the_narrowest_place_has_all_its_workers_and_others_what_feeds_it() -> None:
    nodes = machines(2, cpus=32, gib=64, gpus=4)
    gpu = Pool((stage("gpu", gpus=1),), Resources(gpus=1.0, memory_bytes=2 * GIB))
    cpu = Pool((stage("cpu"),), Resources())
    found = targets([cpu, gpu], {cpu: 4000.0, gpu: 800.0}, nodes)
    assert found == {gpu: 8, cpu: 40}


def test_of_more_pools_than_cores_those_with_most_work_come_first_and_none_without_work() -> None:
    nodes = machines(1, cpus=2, gib=16)
    pools = [Pool((stage(name),), Resources()) for name in "abcd"]
    work_s = dict(zip(pools, (1.0, 5.0, 4.0, 0.0), strict=True))
    assert [targets(pools, work_s, nodes)[pool] for pool in pools] == [0, 1, 1, 0]
