"""What learns: the network with its optimizer and average, and how one step changes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from training.checkpoint import state_of
from training.data.batch import Batch
from training.distributed import Ranks, Replica, shard
from training.ema import ExponentialAverage
from training.lora import add_adapters
from training.losses import (
    FrameErrors,
    frame_errors,
    image_weight,
    joint_loss,
    min_snr_weight,
    target,
)
from training.models.grow import is_temporal
from training.models.unet import UNet
from training.optim import make_optimizer, step_unless
from training.run_config import TrainConfig
from training.stages import Companions, Feed, Stage

NORM_EPS = 1e-6  # torch's, in its own clipping


class Learner:
    """A network in training.

    Args:
        config: The run.
        stage: Feeds the network.
        net: fp32, on the CPU; taken over.
        companions: Frozen models; moved to the device.
        ranks: The processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        net: UNet,
        companions: Companions,
        ranks: Ranks,
    ) -> None:
        self.config, self.stage, self.companions, self.ranks = config, stage, companions, ranks
        for module in (companions.autoencoder, companions.text_encoder):
            if module is not None:
                module.to(ranks.device)
        self.net = net
        self.architecture = net.config
        if config.lora.enabled:
            add_adapters(net, config.lora, seed=config.seed)
        self._mark({phase.trainable for phase in config.phases})
        net.to(ranks.device)
        if config.scale.channels_last:
            net.use_channels_last()
        net.set_activation_checkpointing(config.scale.checkpoint_activations)
        self.sharded = config.scale.parallel == "fsdp" and ranks.world_size > 1
        if self.sharded:
            shard(net)
        if config.scale.compile:
            net.compile()
        self.optimizer = make_optimizer(net.parameters(), config)
        self.average = ExponentialAverage(net, config.optim.ema_decay)
        self._replica: Replica | None = None

    def _mark(self, kinds: set[str]) -> None:
        """Mark the parameters that learn; rotary frequencies never do."""
        for name, parameter in self.net.named_parameters():
            if self.config.lora.enabled:
                parameter.requires_grad_(".lora_" in name)
            else:
                learns = "all" in kinds or is_temporal(name)
                parameter.requires_grad_(learns and not name.endswith("rotary_emb.freqs"))

    def begin_phase(self, index: int) -> None:
        """Let only those parameters learn that the phase names."""
        self._mark({self.config.phases[index].trainable})
        self._replica = Replica(
            self.net,
            self.ranks,
            sharded=self.sharded,
            some_unused=self.config.loss.joint == "separate",
        )

    @property
    def trainable(self) -> frozenset[str]:
        """Names of the parameters that learn in this phase."""
        return frozenset(n for n, p in self.net.named_parameters() if p.requires_grad)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the passes."""
        if self.config.scale.autocast == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.ranks.device.type, dtype=torch.bfloat16)

    def accumulate(
        self, batch: Batch, *, num_micro_batches: int, last: bool
    ) -> tuple[Tensor, FrameErrors, Feed]:
        """Add the gradient of one micro-batch, on the device.

        Args:
            batch: The micro-batch.
            num_micro_batches: Of the step; the step's loss is their mean.
            last: Whether the ranks' gradients are summed now.

        Returns:
            Its part of the step's loss, its errors, and what the network was fed; detached.
        """
        assert self._replica is not None, "a phase has begun"
        with self._replica.accumulating(last):
            with self.autocast():
                feed = self.stage.feed(batch, self.companions)
                predicted = self._replica(
                    feed.sample_BCFhw,
                    feed.timestep_B,
                    feed.text,
                    noise_level_B=feed.noise_level_B,
                    num_images=feed.num_images,
                )
            errors = self._errors(predicted, feed, batch.num_video_frames)
            loss = joint_loss(errors, self.config.loss, image_weight(self.config))
            loss = loss / num_micro_batches
            loss.backward()
        return loss.detach(), errors, feed

    def _errors(self, predicted: Tensor, feed: Feed, num_video_frames: int) -> FrameErrors:
        objective, gamma = self.stage.objective, self.config.loss.min_snr_gamma
        wanted = target(objective, feed.x0_BCFhw, feed.eps_BCFhw, feed.timestep_B)
        weight_B = None if gamma is None else min_snr_weight(objective, feed.timestep_B, gamma)
        return frame_errors(predicted, wanted, weight_B, num_video_frames)

    def update(self, loss: Tensor, learning_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Take the step, unless loss or gradient is not finite; the host does not wait to know.

        Args:
            loss: Of this rank's part of the batch.
            learning_rate: Of this step.

        Returns:
            Loss of the whole batch, norm of its gradient before clipping, and 1.0 where the step
            was left out; on the device.
        """
        loss = self.ranks.mean(loss)
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = getattr(norm, "full_tensor", lambda: norm)()
        found_inf = 1.0 - (torch.isfinite(loss) & torch.isfinite(norm)).float()
        found_inf = self.ranks.largest(found_inf)
        if self.config.optim.clip_norm is not None:
            scale = (self.config.optim.clip_norm / (norm + NORM_EPS)).clamp(max=1.0)
            local = [getattr(g, "to_local", lambda g=g: g)() for g in gradients]
            torch._foreach_mul_(local, scale)
        step_unless(self.optimizer, found_inf, learning_rate)
        self.average.update(found_inf)
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm, found_inf

    def state(self) -> dict[str, Any]:
        """All that a step changes; the very tensors, so that a checkpoint can load into them."""
        self._reshard()
        return state_of(self.net, self.optimizer, self.average.state_dict())

    @contextlib.contextmanager
    def averaged(self) -> Iterator[UNet]:
        """The network with averaged weights, for as long as the block lasts."""
        self._reshard()
        self.average.swap()
        try:
            yield self.net
        finally:
            self._reshard()
            self.average.swap()

    def _reshard(self) -> None:
        """Give up the whole weights that FSDP keeps after a forward without backward.

        They would stand in for the shards, which are what the average is exchanged with.
        """
        if self.sharded:
            for module in self.net.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
