"""Units on a real local Ray: order, kills, poison, errors, resume."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from curation.errors import CorpusError
from curation.stations.station import Resources
from pipelines.ray_cluster import start_ray
from pipelines.run import Stage, UnitResult, run_stages
from pipelines.tries import MAX_ATTEMPTS, MAX_UNITS_IN_A_ROW, UnitsFailed

ONE_CPU = Resources(cpus=1.0)
CHEESE = CorpusError("the disk is made of cheese")


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    start_ray(num_cpus=2)
    yield
    ray.shutdown()


class Silent:
    """A watcher that keeps the order in which units were committed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def start(self, stage: str, *, total: int, done: int) -> None:
        pass

    def advance(self, stage: str, counts: Mapping[str, int]) -> None:
        self.seen.append((stage, counts["unit"]))


@dataclass
class Touch:
    """Appends a line per try of a unit to a file; dies or raises where it is told to."""

    folder: Path
    name: str
    dies_on: int = -1
    dies_times: int = 0
    errors: Mapping[int, tuple[Exception, int]] = field(default_factory=dict)
    """Unit -> what it raises, and how many times."""

    def setup(self) -> None:
        pass

    def run(self, unit: int, plan: object) -> UnitResult:
        tries = self.folder / f"{self.name}-{unit}"
        with tries.open("a") as file:
            file.write("x")
        if unit == self.dies_on and tries.stat().st_size <= self.dies_times:
            os.kill(os.getpid(), signal.SIGKILL)
        error, times = self.errors.get(unit, (None, 0))
        if error is not None and tries.stat().st_size <= times:
            raise error
        return UnitResult(counts={"unit": unit})

    def close(self) -> None:
        pass


def tries(folder: Path, name: str, unit: int) -> int:
    path = folder / f"{name}-{unit}"
    return path.stat().st_size if path.exists() else 0


def stage(name: str, job: Touch, num: int, **more: object) -> Stage:
    return Stage(name=name, job=job, resources=ONE_CPU, units=range(num), **more)


def test_a_unit_waits_for_the_same_unit_of_the_stages_before_it(tmp_path: Path) -> None:
    watcher = Silent()
    run_stages(
        [
            stage("first", Touch(tmp_path, "first"), 4),
            stage("second", Touch(tmp_path, "second"), 4, after=("first",)),
            stage("third", Touch(tmp_path, "third"), 4, after=("first", "second")),
        ],
        watcher,
    )
    assert len(watcher.seen) == 12
    for unit in range(4):
        order = [watcher.seen.index((name, unit)) for name in ("first", "second", "third")]
        assert order == sorted(order)


def test_units_done_before_are_not_done_again(tmp_path: Path) -> None:
    costs = run_stages([stage("a", Touch(tmp_path, "a"), 3, done=frozenset({0, 2}))], Silent())
    assert [tries(tmp_path, "a", unit) for unit in range(3)] == [0, 1, 0]
    assert costs["a"].units == 1


def test_a_unit_whose_worker_was_killed_is_tried_again_and_no_other_is(tmp_path: Path) -> None:
    run_stages([stage("a", Touch(tmp_path, "a", dies_on=1, dies_times=1), 4)], Silent())
    assert [tries(tmp_path, "a", unit) for unit in range(4)] == [1, 2, 1, 1]


def test_a_unit_that_kills_every_worker_fails_alone_after_a_bounded_number_of_tries(
    tmp_path: Path,
) -> None:
    watcher = Silent()
    stages = [
        stage("a", Touch(tmp_path, "a", dies_on=1, dies_times=99), 3),
        stage("b", Touch(tmp_path, "b"), 3, after=("a",)),
    ]
    with pytest.raises(UnitsFailed, match="a of part 1"):
        run_stages(stages, watcher)
    assert tries(tmp_path, "a", 1) == MAX_ATTEMPTS
    assert sorted(watcher.seen) == [("a", 0), ("a", 2), ("b", 0), ("b", 2)]


def test_an_error_of_a_job_stops_the_run_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"^the disk is made of cheese$"
    ):  # no traceback around it
        run_stages([stage("a", Touch(tmp_path, "a", errors={0: (CHEESE, 1)}), 1)], Silent())


def test_an_exception_of_one_unit_costs_its_tries_alone_and_the_end_names_it(
    tmp_path: Path,
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/scratch/x")
    errors = {0: (KeyError("no column"), 99), 1: (MemoryError(), 99), 2: (full, 1)}
    watcher = Silent()
    stages = [
        stage("a", Touch(tmp_path, "a", errors=errors), 4),
        stage("b", Touch(tmp_path, "b"), 4, after=("a",)),
    ]
    with pytest.raises(UnitsFailed) as failed:
        run_stages(stages, watcher)
    assert "a of part 0: KeyError: 'no column'\n" in str(failed.value)
    assert "a of part 1: out of memory (on " in str(failed.value)
    assert "part 2" not in str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert [tries(tmp_path, "a", unit) for unit in range(4)] == [MAX_ATTEMPTS, MAX_ATTEMPTS, 2, 1]
    assert sorted(watcher.seen) == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]


@dataclass
class Broken:
    """Does nothing but note that it was asked, and fail."""

    folder: Path

    def setup(self) -> None:
        pass

    def run(self, unit: int, plan: object) -> UnitResult:
        (self.folder / f"{unit}").touch()
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        pass


def test_a_stage_that_does_nothing_but_fail_is_not_tried_to_its_last_unit(tmp_path: Path) -> None:
    job = Stage(name="a", job=Broken(tmp_path), resources=ONE_CPU, units=range(40))
    with pytest.raises(UnitsFailed, match=r"40 units could not be done(?s:.)*not tried"):
        run_stages([job], Silent())
    assert MAX_UNITS_IN_A_ROW <= len(list(tmp_path.iterdir())) < 20


def test_a_long_backlog_gets_a_worker_although_another_stage_keeps_them_busy(
    tmp_path: Path,
) -> None:
    watcher = Silent()
    run_stages(
        [
            stage("long", Touch(tmp_path, "long"), 60),
            stage("late", Touch(tmp_path, "late"), 60, after=("long",)),
        ],
        watcher,
    )
    first_late = min(i for i, (name, _) in enumerate(watcher.seen) if name == "late")
    last_long = max(i for i, (name, _) in enumerate(watcher.seen) if name == "long")
    assert first_late < last_long
