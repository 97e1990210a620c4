"""What a stage's work is, and the process that does it: one unit after another, with what each cost."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import ray

from curation.corpus.ledger import Commit
from curation.errors import MachineFault, machine_fault


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What a worker tells of a unit that it has committed."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Counters such as {"clips": 12}."""
    commits: Sequence[Commit] = ()
    """Parts that were put, for the record."""


class Job(Protocol):
    """What one worker does: set up once, then one unit after another. Travels to the worker by pickle."""

    def setup(self) -> None:
        """Load models, start children."""

    def run(self, unit: int, plan: Any) -> UnitResult:
        """Commit one unit.

        Args:
            unit: its number.
            plan: its entry of `Stage.plans`; None where the number says it all.
        """

    def close(self) -> None:
        """Let go of what `setup` took."""


@ray.remote
class Worker:
    """One process that holds one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ready = False

    def run(self, unit: int, plan: Any) -> tuple[UnitResult, float, float, int]:
        """Run one unit; returns its result, wall and CPU seconds, and resident bytes.

        Raises:
            MachineFault: this machine cannot do it; another may.
        """
        try:
            return self._run(unit, plan)
        except (OSError, MemoryError, MachineFault) as error:
            fault = machine_fault(error)
            if fault is None:
                raise
            told = MachineFault(f"{fault} (on {socket.gethostname()})")
            told.node = ray.get_runtime_context().get_node_id()
            raise told from error

    def _run(self, unit: int, plan: Any) -> tuple[UnitResult, float, float, int]:
        begin, cpu_begin = time.monotonic(), _family_cpu_s()
        if not self._ready:
            self._job.setup()
            self._ready = True
        result = self._job.run(unit, plan)
        return (
            result,
            time.monotonic() - begin,
            _family_cpu_s() - cpu_begin,
            _family_memory_bytes(),
        )

    def close(self) -> None:
        """Let the job go before the process does."""
        if self._ready:
            self._job.close()


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _family_cpu_s() -> float:
    """CPU seconds of this process, its live children and those it has waited for."""
    total = 0.0
    for process in _family():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _family_memory_bytes() -> int:
    total = 0
    for process in _family():
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
