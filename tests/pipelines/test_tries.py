"""A machine that cannot do the work is not asked again while another can: two real Ray nodes."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError

from curation.stations.station import Resources
from pipelines.run import Stage, run_stages
from pipelines.tries import describe
from pipelines.worker import UnitResult


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield [node["NodeID"] for node in ray.nodes()]
    ray.shutdown()
    cluster.shutdown()


class Silent:
    def start(self, stage: str, *, total: int, done: int) -> None:
        pass

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        pass


@dataclass
class FullOn:
    """Finds the disk full on one node; notes on which node a unit was done."""

    node: str
    folder: Path

    def setup(self) -> None:
        pass

    def run(self, unit: int, plan: object) -> UnitResult:
        here = ray.get_runtime_context().get_node_id()
        with (self.folder / f"{unit}").open("a") as file:
            file.write(f"{here}\n")
        if here == self.node:
            raise OSError(errno.ENOSPC, "No space left on device")
        return UnitResult()

    def close(self) -> None:
        pass


def test_units_of_a_node_with_a_full_disk_are_done_on_the_other(
    nodes: list[str], tmp_path: Path
) -> None:
    full, well = nodes
    job = Stage(name="a", job=FullOn(full, tmp_path), resources=Resources(cpus=1.0), units=range(6))
    costs = run_stages([job], Silent())
    assert costs["a"].units == 6
    tried = [(tmp_path / f"{unit}").read_text().split() for unit in range(6)]
    assert all(nodes_of_unit[-1] == well for nodes_of_unit in tried)
    assert sum(nodes_of_unit.count(full) for nodes_of_unit in tried) <= 1


def test_a_death_is_of_memory_only_where_rays_monitor_says_so() -> None:
    """Ray's text of any death names the out-of-memory killer among the common causes."""
    common = (
        "The actor died. Some common causes include: (1) the process was killed by the OOM killer due to "
        "high memory usage, (2) ray stop --force was called"
    )
    killed = "1 worker(s) were killed due to the node running low on memory."
    assert "memory" not in describe(RayActorError(error_msg=common))
    assert "ran out of memory" in describe(RayActorError(error_msg=killed))
