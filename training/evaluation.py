"""Held-out loss: clips that are never trained on, at fixed times, with fixed noise.

So the curve moves only because the weights do. It is the plain squared error, without the weights
of the training loss, apart for each pool and for videos and images, of raw and of averaged weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from training.data.batch import Batch
from training.distributed import Ranks
from training.losses import frame_errors, target, uninformed_loss
from training.models.unet import UNet
from training.stages import Companions, Stage, encoded


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a held-out loss is measured with."""

    batches: list[Batch]
    """On the CPU."""
    timesteps: tuple[int, ...]
    """Diffusion times at which each sample is measured."""
    stage: Stage
    """Feeds the network."""
    companions: Companions
    """Frozen models."""
    _known: dict[int, Batch] = field(default_factory=dict, init=False, repr=False)

    @torch.no_grad()
    def losses(self, net: UNet, ranks: Ranks, *, every_rank_all: bool) -> dict[str, float]:
        """Mean squared errors, named ``<kind>/<pool>`` and ``<kind>``; kind is video or image.

        Args:
            net: The network.
            ranks: The processes, which share the batches.
            every_rank_all: Every rank measures every batch, as shards need.
        """
        net.eval()
        sums: dict[str, Tensor] = {}
        names = sorted({_name(batch) for batch in self.batches})
        for name in names:
            sums[name] = torch.zeros(2, dtype=torch.float64, device=ranks.device)
        for index, batch in enumerate(self.batches):
            if every_rank_all or index % ranks.world_size == ranks.rank:
                on_device = self._encoded(index, batch, ranks)
                for timestep in self.timesteps:
                    sums[_name(batch)] += self._sum(net, on_device, timestep)
        net.train()
        means = {name: ranks.mean(total).tolist() for name, total in sums.items()}
        return _means(means.items())

    @torch.no_grad()
    def uninformed(self, ranks: Ranks) -> dict[str, float]:
        """What the best predictor without a network would reach on the same samples, named as `losses`.

        It knows mean and variance of each channel of the held-out latents; see `uninformed_loss`.
        """
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = defaultdict(int)
        for index, batch in enumerate(self.batches):
            on_device = self._encoded(index, batch, ranks)
            x0 = self.stage.feed(on_device, self.companions).x0_BCFhw.transpose(0, 1).flatten(1)
            moments = torch.stack([torch.ones_like(x0), x0, x0**2]).double().sum(dim=-1)
            sums[_name(batch)] = sums.get(_name(batch), torch.zeros_like(moments)) + moments
            counts[_name(batch)] += len(batch.positions)
        errors = {}
        for name, (number_C, sum_C, squares_C) in sums.items():
            variance_C = squares_C / number_C - (sum_C / number_C) ** 2
            errors[name] = uninformed_loss(self.stage.objective, variance_C, self.timesteps)
        return _means((n, [errors[n] * counts[n], float(counts[n])]) for n in sorted(errors))

    def _encoded(self, index: int, batch: Batch, ranks: Ranks) -> Batch:
        """The batch on the device; its moments and text states are computed once a run."""
        if index not in self._known:
            on_device = encoded(batch.to(ranks.device), self.companions)
            self._known[index] = on_device.to("cpu")
        return self._known[index].to(ranks.device)

    def _sum(self, net: UNet, batch: Batch, timestep: int) -> Tensor:
        times = torch.full_like(batch.draws["timestep"], timestep)
        batch = replace(batch, draws=batch.draws | {"timestep": times})
        feed = self.stage.feed(batch, self.companions)
        predicted = net(
            feed.sample_BCFhw,
            feed.timestep_B,
            feed.text,
            noise_level_B=feed.noise_level_B,
            num_images=feed.num_images,
        )
        wanted = target(self.stage.objective, feed.x0_BCFhw, feed.eps_BCFhw, feed.timestep_B)
        errors = frame_errors(predicted, wanted, None, batch.num_video_frames)
        error_B = errors.video_B if errors.video_B is not None else errors.image_B
        assert error_B is not None, "a held-out batch holds videos or images"
        return torch.stack([error_B.double().sum(), torch.ones_like(error_B).double().sum()])


def _name(batch: Batch) -> str:
    return f"{'image' if batch.kind == 'images' else 'video'}/{batch.pool}"


def _means(sums: Iterable[tuple[str, list[float]]]) -> dict[str, float]:
    by_kind: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    means = {}
    for name, (total, count) in sums:
        means[name] = total / count
        kind = by_kind[name.partition("/")[0]]
        kind[0] += total
        kind[1] += count
    return means | {kind: total / count for kind, (total, count) in by_kind.items()}
