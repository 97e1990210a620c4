"""Which clips stand in which step: the curriculum, its mixtures and its order as one function.

`Curriculum.at(step)` says the kind and pool of a step and where in the pool's order its batch begins;
`PoolOrder` says which row stands at a place, and which rows stand in for it, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.batch import Kind
from training.data.catalog import Pool
from training.data.filtering import MAX_ENLARGEMENT
from training.data.order import Cycle, Indices, Permutation, ShardOrder
from training.data.random_numbers import generator, key64, uniforms
from training.run_config import Phase, TrainConfig

MAX_TRIES = 1000
"""Rows that are looked at for one place. A weight of a thousandth of the largest is still found."""


class PoolOrder:
    """The order of one pool in one phase: which row stands at each place of each epoch.

    Weights are honoured by rejection: a row that comes up is taken with the chance weight / largest
    weight of the pool, else the next substitute of its place is asked likewise. So a row comes up in
    proportion to its weight on average, and at most so often more than once an epoch as the
    substitutes bring it.

    Args:
        pool: rows to order.
        seed: 64 bits.
        window_shards: as in `ShardOrder`.
    """

    def __init__(self, pool: Pool, seed: int, window_shards: int) -> None:
        self.pool = pool
        self._seed = seed
        self._order = ShardOrder(pool.shard_sizes, seed, window_shards)

    def candidates(self, epoch: int, place: int) -> Iterator[int]:
        """Rows that may stand at one place, best first: the planned one, then those that replace it."""
        places = np.array([place], np.int64)
        for attempt in range(MAX_TRIES):
            rows = self._rows(epoch, places, attempt)
            if self._accepts(epoch, places, attempt, rows)[0]:
                yield int(rows[0])

    def planned(self, epoch: int, places: Indices) -> Indices:
        """The row that stands at each place, if it can be read; -1 where `MAX_TRIES` were refused."""
        chosen = np.full(len(places), -1, np.int64)
        open_ = np.arange(len(places))
        for attempt in range(MAX_TRIES):
            rows = self._rows(epoch, places[open_], attempt)
            taken = self._accepts(epoch, places[open_], attempt, rows)
            chosen[open_[taken]] = rows[taken]
            open_ = open_[~taken]
            if not open_.size:
                break
        return chosen

    def _rows(self, epoch: int, places: Indices, attempt: int) -> Indices:
        """The order itself, or that of the ``attempt``-th substitutes: another permutation each."""
        if attempt == 0:
            return self._order.rows(epoch, places)
        key = key64(self._seed, "substitute", epoch, attempt)
        return Permutation(self._order.num_rows, key)(places)

    def _accepts(
        self, epoch: int, places: Indices, attempt: int, rows: Indices
    ) -> NDArray[np.bool_]:
        if self.pool.equal_weights:
            return np.ones(len(rows), np.bool_)
        chance = uniforms(key64(self._seed, "accept", epoch, attempt), places.astype(np.uint64))
        return np.asarray(chance * self.pool.max_weight < self.pool.weights(rows))


class ImageDraw:
    """Images beside or instead of clips: drawn from all pools, each time anew.

    Unlike clips they have no epochs: M images stand for every clip, and one is a small read
    wherever it lies.

    Args:
        pools: where images come from.
        weights: how often each.
        seed: 64 bits.
        encoded: whether they are latents, whose size cannot be changed any more.
    """

    def __init__(
        self, pools: Sequence[Pool], weights: Sequence[float], seed: int, *, encoded: bool
    ) -> None:
        self._pools = pools
        self._encoded = encoded
        shares = np.asarray(weights, np.float64)
        self._ends = np.cumsum(shares / shares.sum())
        self._seed = seed

    def candidates(
        self, step: int, position: int, number: int, *, size_px: tuple[int, int], fit: str
    ) -> Iterator[tuple[Pool, int]]:
        """Pool and row of images that may stand at one place, best first.

        Args:
            step: of the run.
            position: in the global batch.
            number: of the image in its sample, from 1.
            size_px: H and W that it must cover without being enlarged too far.
            fit: as in `SampleConfig`.
        """
        draw = generator(self._seed, "image", step, position, number)
        enlargement = 1.0 if fit == "patch" else MAX_ENLARGEMENT
        for _ in range(MAX_TRIES):
            of_pool, of_row, of_weight = draw.random(3)
            pool = self._pools[
                min(int(np.searchsorted(self._ends, of_pool, "right")), len(self._pools) - 1)
            ]
            row = min(int(of_row * pool.num_rows), pool.num_rows - 1)
            weight = (
                1.0
                if pool.equal_weights
                else float(pool.weights(np.array([row]))[0]) / pool.max_weight
            )
            if of_weight >= weight or (self._encoded and pool.size_px != size_px):
                continue
            facts = pool.row(row)
            if (
                facts["height"] * enlargement >= size_px[0]
                and facts["width"] * enlargement >= size_px[1]
            ):
                yield pool, row


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step."""

    phase: int
    """Number of the phase it belongs to."""
    kind: Kind
    """What its samples are made of."""
    order: PoolOrder
    """Order of the pool that it draws from."""
    epoch: int
    """Epoch of that pool in that phase."""
    first_place: int
    """Place of the batch's first sample in the pool's epoch."""
    images: ImageDraw | None
    """Where its images come from, if it has any."""

    def places(self, positions: Sequence[int]) -> Indices:
        """Places of some positions of the global batch in the pool's epoch."""
        return self.first_place + np.asarray(positions, np.int64)


class PhasePlan:
    """The steps of one phase.

    Args:
        number: of the phase.
        phase: its settings.
        pools: with at least one full batch each; at least one.
        image_pools: where images come from; empty where none are used.
        config: of the run.
    """

    def __init__(
        self,
        number: int,
        phase: Phase,
        pools: Sequence[Pool],
        image_pools: Sequence[Pool],
        config: TrainConfig,
    ) -> None:
        self.number = number
        self._batch_size = config.data.batch_size
        seed = key64(config.seed, "phase", number)
        self.orders = [
            PoolOrder(pool, key64(seed, f"pool/{pool.name}"), config.data.window_shards)
            for pool in pools
        ]
        batches = [pool.num_rows // self._batch_size for pool in pools]
        weights = pool_weights(pools, batches, phase.source_weights)
        self._entries = [
            (kind, place, weight * share)
            for kind, share in kinds(config)
            for place, weight in enumerate(weights)
            if weight > 0
        ]
        self._cycle = Cycle([entry[2] for entry in self._entries], key64(seed, "mixture"))
        self._images = None
        if image_pools:
            by_rows = [pool.num_rows for pool in image_pools]
            shares = pool_weights(image_pools, by_rows, phase.source_weights)
            self._images = ImageDraw(
                image_pools, shares, key64(seed, "images"), encoded=is_encoded(config)
            )

    def at(self, step_in_phase: int) -> PlannedStep:
        """What one step of the phase holds."""
        entry, before = self._cycle.at(step_in_phase)
        kind, place, _ = self._entries[entry]
        order = self.orders[place]
        epoch, batch = divmod(before, order.pool.num_rows // self._batch_size)
        return PlannedStep(
            phase=self.number,
            kind=kind,
            order=order,
            epoch=epoch,
            first_place=batch * self._batch_size,
            images=None if kind == "video" else self._images,
        )


class Curriculum:
    """All steps of a run.

    Args:
        phases: the plan of each phase.
        config: of the run.
    """

    def __init__(self, phases: Sequence[PhasePlan], config: TrainConfig) -> None:
        self.phases = phases
        self._config = config

    def at(self, step: int) -> PlannedStep:
        """What one step holds.

        Raises:
            ValueError: if the run has no such step.
        """
        phase, step_in_phase = self._config.phase_of(step)
        return self.phases[phase].at(step_in_phase)


def is_encoded(config: TrainConfig) -> bool:
    """Whether the run reads latents; all of its sources or none are encoded."""
    return any(source.encoded is not None for source in config.data.sources)


def kinds(config: TrainConfig) -> list[tuple[Kind, float]]:
    """Kinds of batches and their shares."""
    if config.loss.joint == "separate":
        share = config.loss.image_batch_share
        return [("video", 1 - share), ("images", share)]
    return [("joint" if config.sample.images_per_video else "video", 1.0)]


def pool_weights(
    pools: Sequence[Pool], amounts: Sequence[int], source_weights: Sequence[float]
) -> list[float]:
    """How often to draw from each pool: by amount, within sources that have weights of their own."""
    if not source_weights:
        return [float(amount) for amount in amounts]
    total: dict[int, int] = {}
    for pool, amount in zip(pools, amounts, strict=True):
        total[pool.source] = total.get(pool.source, 0) + amount
    return [
        source_weights[pool.source] * amount / total[pool.source]
        for pool, amount in zip(pools, amounts, strict=True)
    ]
