"""The data of a run: checked before the first step, then batches in an order that is a function.

The state of the loader is the number of the step. Worker processes get numbers of micro-batches and
make them; nothing that a worker draws depends on which worker it is, on how many there are, or on
the number of ranks.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from curation.errors import TrainingDataError
from training.data.batch import Batch, Draw
from training.data.curriculum import Curriculum
from training.data.held_out import HeldOut
from training.data.samples import SampleMaker
from training.data.sources import (
    PoolSummary,
    check_catalogs,
    check_reading,
    open_catalogs,
    open_readers,
    open_sources,
    phase_plans,
    summarise,
)
from training.run_config import TrainConfig

FAILURE_WINDOW = 1000
"""Samples over which the share of unreadable ones is taken."""


class TrainingData:
    """What a run is fed with.

    Args:
        config: of the run.
        cache: local folder for catalogs; several processes and runs may share it.

    Raises:
        CorpusError: if a source has no finished shards, or they were damaged.
        TrainingDataError: if the shards cannot feed the run; says why and how to mend it.
    """

    def __init__(self, config: TrainConfig, *, cache: Path) -> None:
        check_reading(config)
        self._config = config
        self._sources = open_sources(config)
        self._catalogs = open_catalogs(config, self._sources, cache)
        check_catalogs(config, self._catalogs)
        self.digests = {
            name: digest for source in self._sources for name, digest in source.digests.items()
        }
        """What the data are made of: a run that goes on must find the same."""
        self._made: tuple[Curriculum, SampleMaker] | None = None
        self._plan()  # raises if a phase cannot be fed

    def __getstate__(self) -> dict[str, Any]:
        """Without memory maps and open files, which every process opens for itself."""
        return self.__dict__ | {"_made": None}

    def _plan(self) -> tuple[Curriculum, SampleMaker]:
        if self._made is None:
            plan = Curriculum(phase_plans(self._config, self._catalogs), self._config)
            self._made = plan, SampleMaker(self._config, open_readers(self._config, self._sources))
        return self._made

    def summary(self) -> list[PoolSummary]:
        """What each phase draws from, and what it leaves out."""
        return summarise(self._config, self._catalogs)

    def batches(
        self, *, start_step: int, rank: int, world_size: int, draw: Draw
    ) -> Iterator[Batch]:
        """Micro-batches of one rank, in order, until the last step.

        Args:
            start_step: the first step; the state of a run that goes on.
            rank: takes positions [rank * B / W, (rank + 1) * B / W) of each global batch.
            world_size: W, the number of ranks.
            draw: of the stage; runs where the sample is read.

        Raises:
            ValueError: if the global batch cannot be dealt evenly.
            TrainingDataError: in mid-run, if too many clips cannot be read.
        """
        data = self._config.data
        if data.batch_size % (world_size * data.micro_batch_size):
            raise ValueError(
                f"batch_size must be a multiple of ranks x micro_batch_size, got "
                f"{data.batch_size} for {world_size} x {data.micro_batch_size}"
            )
        micro = _MicroBatches(self, rank, world_size, draw)
        runs = data.batch_size // (world_size * data.micro_batch_size)
        numbers = range(start_step * runs, self._config.num_steps * runs)
        return self._watched(_load(micro, numbers, data.num_workers, data.prefetch))

    def _watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        watch = FailureWatch(self._config.data.max_failed_share)
        for batch in batches:
            watch.add(len(batch.positions), batch.replaced)
            yield batch

    def batch(self, step: int, positions: Sequence[int], *, draw: Draw) -> Batch:
        """Any positions of any step's global batch, made in this process."""
        plan, maker = self._plan()
        size = self._config.data.batch_size
        if not positions or not all(0 <= position < size for position in positions):
            raise ValueError(f"positions must be 0 to {size - 1}, got {list(positions)}")
        return maker.batch(step, positions, plan.at(step), draw)

    def clip_ids(self, step: int) -> list[str]:
        """Clips of a step's whole global batch as planned, without reading them.

        Of a step of images alone, the images: M for each position.
        """
        plan, _ = self._plan()
        planned, sample = plan.at(step), self._config.sample
        positions = range(self._config.data.batch_size)
        pool = planned.order.pool
        if planned.kind != "images":
            rows = planned.order.planned(planned.epoch, planned.places(positions))
            return pool.clip_ids(rows)
        assert planned.images is not None, "a step of images draws them from somewhere"
        found = []
        for position in positions:
            for number in range(1, sample.images_per_video + 1):
                drawn = planned.images.candidates(
                    *(step, position, number), size_px=pool.size_px, fit=sample.fit
                )
                found += [own.row(row)["clip_id"] for own, row in [next(drawn)]]
        return found

    def held_out(self, *, num_samples: int, draw: Draw) -> Iterator[Batch]:
        """Held-out samples, always the same: of each pool clips, then images where the stage has any.

        Captions are never dropped. `step` is -1, and `positions` count on through all batches.

        Args:
            num_samples: of each pool and kind, at most.
            draw: of the stage.
        """
        _, maker = self._plan()
        return HeldOut(self._config, self._catalogs, maker).batches(num_samples, draw)


class _MicroBatches(Dataset[Batch]):
    """Micro-batches of one rank by number."""

    def __init__(self, data: TrainingData, rank: int, world_size: int, draw: Draw) -> None:
        config = data._config.data
        self._data = data
        self._draw = draw
        self._micro = config.micro_batch_size
        self._per_rank = config.batch_size // world_size
        self._first = rank * self._per_rank

    def __getitem__(self, number: int) -> Batch:
        step, run = divmod(number, self._per_rank // self._micro)
        begin = self._first + run * self._micro
        return self._data.batch(step, range(begin, begin + self._micro), draw=self._draw)


def _load(micro: _MicroBatches, numbers: range, num_workers: int, prefetch: int) -> Iterable[Batch]:
    """Micro-batches in the order of their numbers."""
    if num_workers == 0:
        return (micro[number] for number in numbers)
    # Not fork: the trainer has threads and a CUDA context by now, object-store clients too.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.data.loader"])
    return DataLoader(
        micro,
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        prefetch_factor=prefetch,
        multiprocessing_context=context,
        collate_fn=_same,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # or it would take a number from the trainer's own
    )


def _same(batch: Any) -> Any:
    return batch


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; the trainer still needs this one for its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class FailureWatch:
    """Stops a run in which too many clips cannot be read.

    Args:
        max_share: of the last `FAILURE_WINDOW` samples that may have been replaced.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._seen: deque[tuple[int, tuple[str, ...]]] = deque()
        self._num_seen = 0

    def add(self, num_samples: int, replaced: Sequence[str]) -> None:
        """Take in one micro-batch.

        Raises:
            TrainingDataError: if more than the share of a window has failed, full or not: a clip
                that fails early in a run does not stop it.
        """
        self._seen.append((num_samples, tuple(replaced)))
        self._num_seen += num_samples
        while self._num_seen - self._seen[0][0] >= FAILURE_WINDOW:
            self._num_seen -= self._seen.popleft()[0]
        failed = [clip for _, clips in self._seen for clip in clips]
        if len(failed) > self._max_share * FAILURE_WINDOW:
            names = ", ".join(list(dict.fromkeys(failed))[:5])
            raise TrainingDataError(
                f"{len(failed)} clips could not be read in the last {self._num_seen} samples, more than "
                f"max_failed_share ({self._max_share:g}) of {FAILURE_WINDOW} ({names}, ...). "
                "`lavie verify` tells which files changed"
            )
