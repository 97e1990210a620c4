"""One run: from its folder's newest checkpoint, or from the start, to its last step.

The same function runs alone, under torchrun and under Ray Train. What step k learns from is a
function of the seed and k, so a run that is killed and started again ends with the same bits as one
that was not, and a run on other ranks differs only in the order of sums.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.corpus.store import Store
from training.checkpoint import Checkpoints, check_unchanged, state_of
from training.config import TrainConfig
from training.data.batch import Batch
from training.data.loader import TrainingData
from training.distributed import Ranks, Replica, shard
from training.ema import ExponentialAverage
from training.evaluation import HeldOut
from training.export import export
from training.identity import identity
from training.lora import add_adapters
from training.losses import frame_errors, image_weight, joint_loss, min_snr_weight, target
from training.metrics import Clock, FlopCounts, Journal, Sums, Watchdog, local_folder
from training.models import UNet
from training.models.grow import is_temporal
from training.optim import learning_rate, make_optimizer, step_unless
from training.stages import Feed, stage_of
from training.start import companions_of, starting_network

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the surroundings of a run want of it; every rank calls them alike."""

    on_log: Callable[[int, Mapping[str, float]], None] | None = None
    """Step and curves, whenever they are logged."""
    on_sample: Callable[[Trainer, int], None] | None = None
    """Sample videos with the averaged weights."""
    stop: Callable[[], bool] = field(default=lambda: False)
    """Whether to save and leave after this step: SIGTERM, preemption."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    step: int
    """Optimizer steps taken."""
    stopped: bool
    """Whether it was asked to leave before its last step; the same command goes on."""
    held_out: Mapping[str, float]
    """Last held-out losses."""


class Trainer:
    """Everything of a run that lives from one step to the next.

    Args:
        config: The run.
        run: Its folder or object-store prefix; what is there is gone on with.
        ranks: The processes.
        hooks: What the surroundings want.
        up_to: Load the newest checkpoint that is not later than this step, to look back; nothing
            is written then.

    Raises:
        LavieError: The run cannot begin: data, weights or an earlier checkpoint do not fit.
        ValueError: Settings contradict each other.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: str,
        ranks: Ranks,
        hooks: Hooks,
        *,
        up_to: int | None = None,
    ) -> None:
        self.config, self.ranks, self.hooks = config, ranks, hooks
        self.run = Store(run)
        folder, self._scratch = local_folder(self.run.path() if self.run.is_local else None)
        self.folder = folder
        self.stage = stage_of(config)
        self.data = TrainingData(config, cache=folder / "catalog")
        self._check_batch()
        self._make_network()
        self.made_of = identity(config, self.data, self.net, self.stage.objective, self.companions)
        self.optimizer = make_optimizer(self.net.parameters(), config)
        self.average = ExponentialAverage(self.net, config.optim.ema_decay)
        self.watchdog = Watchdog(
            config.watch.spike_factor, config.watch.max_nonfinite_steps, self.data.clip_ids
        )
        self.checkpoints = Checkpoints(self.run, config.save, ranks)
        self.step = self._resume(up_to)
        self._phase: int | None = None
        self._held_out: HeldOut | None = None
        self.held_out_losses: dict[str, float] = {}
        self._scored_at = -1
        self.journal = Journal(
            folder if ranks.is_first and up_to is None else None,
            from_step=self.step,
            wandb_project=config.watch.wandb_project,
        )
        if ranks.is_first and up_to is None:
            text = json.dumps(asdict(config), indent=1, sort_keys=True)
            self.run.write("config.json", (text + "\n").encode())

    def _check_batch(self) -> None:
        data, world = self.config.data, self.ranks.world_size
        if data.batch_size % (world * data.micro_batch_size):
            raise ValueError(
                f"batch_size must be a multiple of ranks times micro_batch_size, "
                f"got {data.batch_size} for {world} ranks of {data.micro_batch_size}"
            )
        self.num_micro_batches = data.batch_size // (world * data.micro_batch_size)

    def _make_network(self) -> None:
        config, device = self.config, self.ranks.device
        self.net = starting_network(config, self.stage.objective)
        self.architecture = self.net.config
        companions = companions_of(
            config, self.stage.objective, self.net.config.cross_attention_dim
        )
        for module in (companions.autoencoder, companions.text_encoder):
            if module is not None:
                module.to(device)
        self.companions = companions
        if config.lora.enabled:
            add_adapters(self.net, config.lora, seed=config.seed)
        self._mark({phase.trainable for phase in config.phases})
        self.net.to(device)
        if config.scale.channels_last:
            self.net.use_channels_last()
        self.net.set_activation_checkpointing(config.scale.checkpoint_activations)
        self.sharded = config.scale.parallel == "fsdp" and self.ranks.world_size > 1
        if self.sharded:
            shard(self.net)
        if config.scale.compile:
            self.net.compile()

    def _mark(self, kinds: set[str]) -> None:
        """Mark the parameters that learn; rotary frequencies never do."""
        for name, parameter in self.net.named_parameters():
            if self.config.lora.enabled:
                parameter.requires_grad_(".lora_" in name)
            else:
                learns = "all" in kinds or is_temporal(name)
                parameter.requires_grad_(learns and not name.endswith("rotary_emb.freqs"))

    def _state(self) -> dict[str, Any]:
        self._bad_steps = torch.tensor(self.watchdog.num_bad)
        state = state_of(self.net, self.optimizer, self.average.state_dict())
        return state | {"progress": {"bad_steps": self._bad_steps}}

    def _resume(self, up_to: int | None) -> int:
        marker = self.checkpoints.latest(at_most=up_to)
        if marker is None:
            return 0
        check_unchanged(marker, self.made_of)
        state = self._state()
        self.checkpoints.load(marker.step, state)
        self.watchdog.num_bad = int(self._bad_steps)
        if self.ranks.is_first:
            logger.info("going on from step %s of %s", marker.step, self.run.root)
        return marker.step

    def fit(self) -> Outcome:
        """Take the steps that are left, then export the averaged weights."""
        config, stopped = self.config, False
        if self.step == 0:
            self.evaluate()
        sums, clock = Sums(self.ranks.device), Clock()
        batches = iter(
            self.data.batches(
                start_step=self.step,
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
                draw=self.stage.draw,
            )
            if self.step < config.num_steps
            else ()
        )
        try:
            while self.step < config.num_steps and not stopped:
                self._take_step(batches, sums, clock)
                stopped = self._asked_to_stop()
                self._after_step(sums, clock, last=stopped or self.step == config.num_steps)
            self.checkpoints.wait()
            if not stopped:
                export(self)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()  # reading processes
            self.close()
        return Outcome(self.step, stopped, self.held_out_losses)

    def close(self) -> None:
        """Finish writing, and let go of threads and scratch folders."""
        self.checkpoints.close()
        self.journal.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _asked_to_stop(self) -> bool:
        asked = torch.tensor(float(self.hooks.stop()))  # on the CPU: no rank waits for its device
        return bool(self.ranks.largest(asked) > 0)

    def _enter(self, index: int) -> None:
        phase, config = self.config.phases[index], self.config
        self._mark({phase.trainable})
        trainable = frozenset(n for n, p in self.net.named_parameters() if p.requires_grad)
        self._flops = FlopCounts(self.architecture, trainable)
        self._replica = Replica(
            self.net,
            self.ranks,
            sharded=self.sharded,
            some_unused=config.loss.joint == "separate",
        )
        self._phase = index
        if self.ranks.is_first:
            logger.info("phase %r: %s steps", phase.name, phase.steps)

    def _take_step(self, batches: Iterator[Batch], sums: Sums, clock: Clock) -> None:
        index, step_of_phase = self.config.phase_of(self.step)
        if index != self._phase:
            self._enter(index)
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for micro in range(self.num_micro_batches):
            begin_s = time.monotonic()
            batch = next(batches)
            clock.waited_s += time.monotonic() - begin_s
            assert batch.step == self.step, "the loader and the trainer count alike"
            if batch.replaced:
                event = {"event": "replaced", "clip_ids": batch.replaced}
                self.journal.line({"step": self.step, **event})
            batch = batch.to(self.ranks.device, non_blocking=True)
            clock.samples += len(batch.positions) * self.ranks.world_size
            with self._replica.accumulating(micro == self.num_micro_batches - 1):
                loss = self._loss(batch, sums, clock) / self.num_micro_batches
                loss.backward()
            losses.append(loss.detach())
        self._update(torch.stack(losses).sum(), step_of_phase, sums)
        self.step += 1

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.scale.autocast == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.ranks.device.type, dtype=torch.bfloat16)

    def _loss(self, batch: Batch, sums: Sums, clock: Clock) -> Tensor:
        config = self.config
        with self._autocast():
            feed = self.stage.feed(batch, self.companions)
            predicted = self._forward(feed)
        objective = self.stage.objective
        wanted = target(objective, feed.x0_BCFhw, feed.eps_BCFhw, feed.timestep_B)
        gamma = config.loss.min_snr_gamma
        weight_B = None if gamma is None else min_snr_weight(objective, feed.timestep_B, gamma)
        errors = frame_errors(predicted, wanted, weight_B, batch.num_video_frames)
        sums.add_errors(errors, feed.timestep_B)
        if (
            self.ranks.device.type == "cuda"
        ):  # counting costs seconds, which a CPU's user would feel
            clock.flop += self._flops.of(feed)
        return joint_loss(errors, config.loss, image_weight(config))

    def _forward(self, feed: Feed) -> Tensor:
        return self._replica(
            feed.sample_BCFhw,
            feed.timestep_B,
            feed.text,
            noise_level_B=feed.noise_level_B,
            num_images=feed.num_images,
        )

    def _update(self, loss: Tensor, step_of_phase: int, sums: Sums) -> None:
        config = self.config
        loss = self.ranks.mean(loss)
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = getattr(norm, "full_tensor", lambda: norm)()
        found_inf = 1.0 - (torch.isfinite(loss) & torch.isfinite(norm)).float()
        found_inf = self.ranks.largest(found_inf)
        if config.optim.clip_norm is not None:
            scale = (config.optim.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            local = [getattr(g, "to_local", lambda g=g: g)() for g in gradients]
            torch._foreach_mul_(local, scale)
        phase = config.phases[config.phase_of(self.step)[0]]
        rate = learning_rate(config.optim, phase, step_of_phase)
        step_unless(self.optimizer, found_inf, rate)
        self.average.update(found_inf)
        sums.add_step(self.step, loss, norm, found_inf)

    def _after_step(self, sums: Sums, clock: Clock, *, last: bool) -> None:
        watch, step = self.config.watch, self.step
        save_now = last or step % self.config.save.every_steps == 0
        if last or save_now or step % watch.log_every_steps == 0:
            self._log(sums, clock)
        if step == self.config.num_steps or step % watch.evaluate_every_steps == 0:
            self.evaluate()
        if watch.sample_every_steps is not None and step % watch.sample_every_steps == 0:
            self._sample()
        if save_now:
            self.save()

    def _log(self, sums: Sums, clock: Clock) -> None:
        steps, losses = sums.read(self.ranks)
        for event in self.watchdog.look(steps):
            self.journal.line(event)
            if self.ranks.is_first:
                logger.warning("step %(step)s: %(event)s, loss %(loss)s", event)
        index, of_phase = self.config.phase_of(self.step - 1)
        values = {
            "loss": sum(step.loss for step in steps) / len(steps),
            "gradient_norm": sum(step.gradient_norm for step in steps) / len(steps),
            "learning_rate": learning_rate(self.config.optim, self.config.phases[index], of_phase),
            "bad_steps": float(self.watchdog.num_bad),
            **losses,
            **clock.read(self.ranks),
        }
        self.journal.write(self.step - 1, values)
        if self.hooks.on_log is not None:
            self.hooks.on_log(self.step, values)
        self.watchdog.stop_if_too_many()

    def evaluate(self) -> None:
        """Measure the held-out losses of raw and averaged weights, where clips are held out."""
        if self._held_out is None:
            batches = self.data.held_out(
                num_samples=self.config.watch.evaluation_samples, draw=self.stage.draw
            )
            times = self.config.watch.evaluation_timesteps
            self._held_out = HeldOut(list(batches), times, self.stage, self.companions)
        if not self._held_out.batches:
            return
        found = {}
        with self._autocast():
            for name in ("raw", "average"):
                with self.averaged() if name == "average" else contextlib.nullcontext():
                    losses = self._held_out.losses(
                        self.net, self.ranks, every_rank_all=self.sharded
                    )
                found.update({f"held_out/{name}/{key}": value for key, value in losses.items()})
        self.held_out_losses = found
        self._scored_at = self.step
        # Step k - 1 made the weights; before the first step there is no such line.
        self.journal.write(max(self.step - 1, 0), found)
        if self.hooks.on_log is not None:
            self.hooks.on_log(self.step, found)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[UNet]:
        """The network with averaged weights, for as long as the block lasts."""
        self.average.swap()
        try:
            yield self.net
        finally:
            self.average.swap()

    def _sample(self) -> None:
        if self.hooks.on_sample is not None:
            with self.averaged():
                self.hooks.on_sample(self, self.step)

    def save(self) -> None:
        """Write a checkpoint of this step."""
        score = None
        if self._scored_at == self.step and "held_out/average/video" in self.held_out_losses:
            score = self.held_out_losses["held_out/average/video"]
        self.checkpoints.save(self._state(), step=self.step, made_of=self.made_of, score=score)
        if self._scratch is not None and self.ranks.is_first:
            for path in sorted(Path(self.folder).rglob("*")):
                if path.is_file() and "catalog" not in path.parts:
                    self.run.put_file(str(path.relative_to(self.folder)), path)


def train(config: TrainConfig, run: str, ranks: Ranks, hooks: Hooks | None = None) -> Outcome:
    """Run, or go on with a run; see `Trainer`."""
    return Trainer(config, run, ranks, hooks or Hooks()).fit()
