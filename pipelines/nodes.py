"""What the machines of a run have, what of it is free, and what one worker may ask of them.

Judged machine by machine: two machines with three cores each have room for two workers of two cores,
not for three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node  # Ray's own libraries use it as well

from curation.stations.station import Resources

Amounts = Mapping[str, float]
"""Resource of Ray -> how much of it; CPU, GPU, memory (bytes), and what a cluster has named itself."""

EPSILON = 1e-6  # Ray counts in ten-thousandths


@dataclass(frozen=True, slots=True)
class Request:
    """What one worker asks Ray for."""

    cpus: float
    gpus: float
    memory_bytes: int
    custom: tuple[tuple[str, float], ...] = ()

    @property
    def amounts(self) -> dict[str, float]:
        """The request by Ray's names of resources."""
        plain = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes)}
        return {name: n for name, n in (plain | dict(self.custom)).items() if n}

    @property
    def options(self) -> dict[str, Any]:
        """The request as arguments of an actor's `options`."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "memory": self.memory_bytes,
            "resources": dict(self.custom),
        }

    def __str__(self) -> str:
        """Such as '2 CPUs, 0.5 GPU, 2.0 GiB of memory'."""
        texts = [_count(self.cpus, "CPU")]
        texts += [_count(self.gpus, "GPU")] if self.gpus else []
        texts += [f"{self.memory_bytes / 1024**3:.1f} GiB of memory"] if self.memory_bytes else []
        return ", ".join(texts + [f"{n:g} of {name!r}" for name, n in self.custom])


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}" + ("s" if number > 1 else "")


@dataclass(frozen=True, slots=True)
class Nodes:
    """The live machines of the cluster at one time; they come and go."""

    total: Mapping[str, Amounts]
    """Ray's id of a machine -> what it has."""
    free: Mapping[str, Amounts]
    """Ray's id of a machine -> what of it nobody has taken."""

    @classmethod
    def now(cls) -> Nodes:
        """The cluster as it is."""
        total = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        free = available_resources_per_node()
        return cls(total, {node: free.get(node, {}) for node in total})

    def without(self, avoided: Iterable[str]) -> Nodes:
        """The same cluster, some machines left out."""
        kept = self.total.keys() - set(avoided)
        return Nodes({n: self.total[n] for n in kept}, {n: self.free[n] for n in kept})

    def sum(self, name: str) -> float:
        """How much of one resource all machines have."""
        return sum(amounts.get(name, 0.0) for amounts in self.total.values())

    def request(self, resources: Resources) -> Request:
        """What a worker asks for: never more cores or memory than a machine has, or it would wait for ever.

        A GPU is asked for only where there is one. Without any machine that has cores it is what the
        worker would take, so that whoever starts machines sees what is missing.
        """
        gpus = resources.gpus if self.sum("GPU") else 0.0
        custom = tuple(sorted(resources.custom.items()))
        special = {"GPU": gpus, **dict(custom)}
        workers = [amounts for amounts in self.total.values() if amounts.get("CPU", 0.0)]
        fitting = [amounts for amounts in workers if has(amounts, special)] or workers
        if not fitting:
            return Request(resources.cpus, gpus, resources.memory_bytes, custom)
        cpus = min(resources.cpus, max(amounts["CPU"] for amounts in fitting))
        memory = max(amounts.get("memory", 0.0) for amounts in fitting if amounts["CPU"] >= cpus)
        return Request(cpus, gpus, min(resources.memory_bytes, int(memory)), custom)

    def room(self, request: Request) -> int:
        """How many workers the machines would hold if all of them were free."""
        return sum(_times(amounts, request.amounts) for amounts in self.total.values())

    def fits_now(self, request: Request) -> bool:
        """Whether a machine has room for one more worker."""
        return any(has(amounts, request.amounts) for amounts in self.free.values())


def has(amounts: Amounts, asked: Amounts) -> bool:
    """Whether all that is asked is there."""
    return all(amounts.get(name, 0.0) >= n - EPSILON for name, n in asked.items())


def _times(amounts: Amounts, asked: Amounts) -> int:
    return min(int((amounts.get(name, 0.0) + EPSILON) // n) for name, n in asked.items())
