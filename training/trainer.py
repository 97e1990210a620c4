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

from curation.corpus.store import Store
from curation.errors import UsageError
from training.checkpoint import Checkpoints, check_unchanged
from training.data.batch import Batch
from training.data.loader import TrainingData
from training.distributed import Ranks
from training.evaluation import HeldOut
from training.export import export
from training.initial_weights import companions_of, initial_network
from training.learner import Learner
from training.metrics import Clock, FlopCounts, Journal, LossSums, Watchdog, local_folder
from training.optim import learning_rate
from training.resume_check import compared_on_resume
from training.run_config import TrainConfig
from training.stages import stage_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the surroundings of a run want of it; every rank calls them alike."""

    on_begin: Callable[[Trainer], None] | None = None
    """Everything is checked, no step is taken yet."""
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
        self.learner = self._make_learner()
        self.made_of = compared_on_resume(config, self.data, self.learner)
        self.watchdog = Watchdog(
            config.watch.spike_factor, config.watch.max_nonfinite_steps, self.data.clip_ids
        )
        self.checkpoints = Checkpoints(self.run, config.save, ranks)
        self.step = self._resume(up_to)
        self._phase: int | None = None
        self._replaced: list[dict[str, Any]] = []
        self._held_out: HeldOut | None = None
        self._uninformed: dict[str, float] | None = None
        self.held_out_losses: dict[str, float] = {}
        self._scored_at = -1
        if self._scratch is not None and ranks.is_first:
            self._fetch_journal()
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
            raise UsageError(
                f"--data.batch-size must be a multiple of ranks times --data.micro-batch-size, "
                f"got {data.batch_size} for {world} ranks of {data.micro_batch_size}"
            )
        self.num_micro_batches = data.batch_size // (world * data.micro_batch_size)

    def _fetch_journal(self) -> None:
        """Curves of the steps before, from an object store, so that they are written on."""
        for name in ["log.jsonl", *self.run.files("tensorboard")]:
            if self.run.exists(name):
                place = self.folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self.run.read(name))

    def _make_learner(self) -> Learner:
        objective = self.stage.objective
        net = initial_network(self.config, objective)
        companions = companions_of(self.config, objective, net.config.cross_attention_dim)
        return Learner(self.config, self.stage, net, companions, self.ranks)

    def _state(self) -> dict[str, Any]:
        self._bad_steps = torch.tensor(self.watchdog.num_bad)
        return self.learner.state() | {"progress": {"bad_steps": self._bad_steps}}

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
        if self.hooks.on_begin is not None:
            self.hooks.on_begin(self)
        if self.step == 0:
            self.evaluate()
        sums, clock = LossSums(self.ranks.device), Clock()
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
                export(self.learner, self.run, self.step)
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
        self.learner.begin_phase(index)
        self._flops = FlopCounts(self.learner.architecture, self.learner.trainable)
        self._phase = index
        if self.ranks.is_first:
            phase = self.config.phases[index]
            logger.info("phase %r: %s steps", phase.name, phase.steps)

    def _take_step(self, batches: Iterator[Batch], sums: LossSums, clock: Clock) -> None:
        index, step_of_phase = self.config.phase_of(self.step)
        if index != self._phase:
            self._enter(index)
        losses = []
        for micro in range(self.num_micro_batches):
            batch = self._next(batches, clock)
            loss, errors, feed = self.learner.accumulate(
                batch,
                num_micro_batches=self.num_micro_batches,
                last=micro == self.num_micro_batches - 1,
            )
            losses.append(loss)
            sums.add_errors(errors, feed.timestep_B)
            if self.ranks.device.type == "cuda":  # counting costs seconds, which a CPU's user feels
                clock.flop += self._flops.of(feed)
        rate = learning_rate(self.config.optim, self.config.phases[index], step_of_phase)
        sums.add_step(self.step, *self.learner.update(torch.stack(losses).sum(), rate))
        self.step += 1

    def _next(self, batches: Iterator[Batch], clock: Clock) -> Batch:
        begin_s = time.monotonic()
        batch = next(batches)
        clock.waited_s += time.monotonic() - begin_s
        clock.samples += len(batch.positions) * self.ranks.world_size
        assert batch.step == self.step, "the loader and the trainer count alike"
        if batch.replaced:
            self._replaced.append({"step": self.step, "clip_ids": list(batch.replaced)})
        return batch.to(self.ranks.device, non_blocking=True)

    def _after_step(self, sums: LossSums, clock: Clock, *, last: bool) -> None:
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

    def _log(self, sums: LossSums, clock: Clock) -> None:
        steps, losses = sums.read(self.ranks)
        for event in self.watchdog.look(steps):
            self.journal.line(event)
            if self.ranks.is_first:
                logger.warning("step %(step)s: %(event)s, loss %(loss)s", event)
        for of_rank in self.ranks.gather(self._replaced):
            for replaced in of_rank:
                self.journal.line({"event": "replaced", **replaced})
        self._replaced = []
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
            self._held_out = HeldOut(list(batches), times, self.stage, self.learner.companions)
        if not self._held_out.batches:
            return
        found = {}
        with self.learner.autocast():
            for name in ("raw", "average"):
                with self.learner.averaged() if name == "average" else contextlib.nullcontext():
                    losses = self._held_out.losses(
                        self.learner.net, self.ranks, every_rank_all=self.learner.sharded
                    )
                found.update({f"held_out/{name}/{key}": value for key, value in losses.items()})
            if self._uninformed is None:
                self._uninformed = self._held_out.uninformed(self.ranks)
        found.update({f"held_out/uninformed/{k}": v for k, v in self._uninformed.items()})
        self.held_out_losses = found
        self._scored_at = self.step
        # Step k - 1 made the weights; before the first step there is no such line.
        self.journal.write(max(self.step - 1, 0), found)
        if self.hooks.on_log is not None:
            self.hooks.on_log(self.step, found)

    def _sample(self) -> None:
        if self.hooks.on_sample is not None:
            with self.learner.averaged():
                self.hooks.on_sample(self, self.step)
            self.ranks.wait_for_all()  # rank 0 samples

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
