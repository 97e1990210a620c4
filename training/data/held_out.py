"""Held-out samples: the same at every evaluation, of every pool, clips and images apart."""

from __future__ import annotations

from collections.abc import Iterator

from training.data.batch import Batch, Draw, Kind, Sample
from training.data.catalog import Catalog, Pool
from training.data.curriculum import ImageDraw, is_encoded
from training.data.order import Permutation
from training.data.random_numbers import key64
from training.data.samples import SampleMaker
from training.data.sources import clip_kinds, image_kind
from training.run_config import TrainConfig

STEP = -1
"""Step of held-out samples in all streams."""


class HeldOut:
    """Held-out samples of a run.

    Args:
        config: of the run.
        catalogs: of its sources, for each set of sizes.
        maker: makes the samples.
    """

    def __init__(
        self,
        config: TrainConfig,
        catalogs: dict[tuple[tuple[int, int], ...], list[Catalog]],
        maker: SampleMaker,
    ) -> None:
        self._config = config
        self._maker = maker
        pools: dict[str, Pool] = {}
        images: dict[str, Pool] = {}
        for of_sizes in catalogs.values():
            for catalog in of_sizes:
                for kind in clip_kinds(config):
                    pools |= {pool.name: pool for pool in catalog.pools("held_out", kind)}
                images |= {
                    pool.name: pool for pool in catalog.pools("held_out", image_kind(config))
                }
        self._pools = list(pools.values())
        self._images = list(images.values()) if config.sample.images_per_video else []

    def batches(self, num_samples: int, draw: Draw) -> Iterator[Batch]:
        """Batches of each pool in turn, of clips and then of images."""
        kinds: tuple[Kind, ...] = ("video", "images") if self._images else ("video",)
        number = 0
        for pool in self._pools:
            key = key64(self._config.seed, f"held_out/{pool.name}")
            order = Permutation(pool.num_rows, key)
            for kind in kinds:
                places = range(min(num_samples, pool.num_rows))
                made = []
                for place in places:
                    made.append(self._sample(kind, pool, order, place, number))
                    number += 1
                    if len(made) == self._config.data.micro_batch_size or place == places[-1]:
                        yield self._maker.stack(made, draw, kind=kind, pool=pool.name)
                        made = []

    def _sample(
        self, kind: Kind, pool: Pool, order: Permutation, place: int, number: int
    ) -> Sample:
        clips: list[Iterator[tuple[Pool, int]]] = []
        images: list[Iterator[tuple[Pool, int]]] = []
        if kind == "video":
            # those that cannot be read are replaced by the next in the order
            places = [(place + more) % pool.num_rows for more in range(pool.num_rows)]
            clips = [((pool, int(order(each)[0])) for each in places)]
        else:
            images = self._image_candidates(pool, number)
        return self._maker.sample(STEP, number, clips, images, pool=pool, dropout=0.0)

    def _image_candidates(self, pool: Pool, number: int) -> list[Iterator[tuple[Pool, int]]]:
        weights = [own.num_rows for own in self._images]
        key = key64(self._config.seed, "held_out/images")
        drawing = ImageDraw(self._images, weights, key, encoded=is_encoded(self._config))
        sample = self._config.sample
        return [
            drawing.candidates(STEP, number, each, size_px=pool.size_px, fit=sample.fit)
            for each in range(1, sample.images_per_video + 1)
        ]
