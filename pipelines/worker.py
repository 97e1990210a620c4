"""What a stage's work is, and the process that does it: one unit after another, with what each cost."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import psutil
import ray

from curation.corpus.ledger import Commit
from curation.errors import MachineFault, machine_fault
from pipelines.logs import Line, kept


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What a worker tells of a unit that it has committed."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Counters such as {"clips": 12}."""
    commits: Sequence[Commit] = ()
    """Parts that were put, for the record."""


class Job(Protocol):
    """What one worker does: set up once, then one unit after another. Travels to the worker by pickle.

    Jobs that ask for the same resources may share a process, one unit at a time.
    """

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


@runtime_checkable
class CarefulJob(Job, Protocol):
    """A job that can write down which piece of a unit is in hand, for units that failed before."""

    def run_carefully(self, unit: int, plan: Any) -> UnitResult:
        """Commit one unit as `run` does, with each piece written down before it is touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A unit that was done, and what it took."""

    result: UnitResult
    wall_s: float
    setup_s: float
    """Of ``wall_s``, what setting the job up took: 0 but for the first unit of a stage."""
    cpu_s: float
    memory_bytes: int
    lines: Sequence[Line] = ()
    """What was logged meanwhile."""


@ray.remote
class Worker:
    """One process that holds the jobs of stages that share it.

    Args:
        jobs: by the name of their stage; each is set up when its first unit comes.
        log_level: from which level on lines of the log are handed over.
    """

    def __init__(self, jobs: Mapping[str, Job], log_level: int = logging.WARNING) -> None:
        self._jobs = jobs
        self._log_level = log_level
        self._ready: set[str] = set()

    def node(self) -> str:
        """Ray's id of the machine that it has started on."""
        return str(ray.get_runtime_context().get_node_id())

    def run(self, stage: str, unit: int, plan: Any, *, failed: bool = False) -> Ran:
        """Run one unit of one stage.

        Args:
            stage: its name.
            unit: its number.
            plan: of the unit.
            failed: whether the unit failed before.

        Raises:
            MachineFault: this machine cannot do it; another may.
        """
        try:
            with kept(self._log_level) as lines:
                ran = self._run(stage, unit, plan, failed)
            return replace(ran, lines=lines)
        except (OSError, MemoryError, MachineFault) as error:
            fault = machine_fault(error)
            if fault is None:
                raise
            told = MachineFault(f"{fault} (on {socket.gethostname()})")
            told.node = self.node()
            raise told from error

    def _run(self, stage: str, unit: int, plan: Any, failed: bool) -> Ran:
        job = self._jobs[stage]
        begin, cpu_begin = time.monotonic(), _family_cpu_s()
        if stage not in self._ready:
            job.setup()
            self._ready.add(stage)
        set_up = time.monotonic()
        if failed and isinstance(job, CarefulJob):
            result = job.run_carefully(unit, plan)
        else:
            result = job.run(unit, plan)
        return Ran(
            result=result,
            wall_s=time.monotonic() - begin,
            setup_s=set_up - begin,
            cpu_s=_family_cpu_s() - cpu_begin,
            memory_bytes=_family_memory_bytes(),
        )


def _children(pid: int) -> list[int]:
    """Ids of all live descendants of a process.

    From the kernel's own lists: to look through all processes of the machine, as psutil does, takes
    10 ms, more than many a unit.
    """
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:  # a thread or process that ended meanwhile
            continue
    return found + [below for child in found for below in _children(child)]


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    if not Path(f"/proc/{me.pid}/task/{me.pid}/children").exists():  # another system than Linux
        return [me, *me.children(recursive=True)]
    family = [me]
    for pid in _children(me.pid):
        try:
            family.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return family


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
