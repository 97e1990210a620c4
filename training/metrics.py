"""What a run tells of itself: curves, lines of log.jsonl, spikes, cost.

Losses are summed on the device; the host looks at them every so many steps and waits for the device
then only.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from curation.errors import LavieError
from training.distributed import Ranks
from training.losses import FrameErrors
from training.models.unet import UNet
from training.models.unet_config import UNetConfig
from training.stages import Feed

NUM_BINS = 10  # of the diffusion time; a late and an early time differ a hundredfold in loss
NUM_STEPS = 1000
MEDIAN_OVER = 200  # steps that say what a usual loss is
PEAK_TFLOPS_BF16 = {
    # dense bf16 of the data sheets, by a part of the device's name
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
}


class TooManyBadSteps(LavieError):
    """More steps than allowed had a loss or gradient that is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What is known of one optimizer step, read back from the device."""

    step: int
    """Its number."""
    loss: float
    """Loss of the whole batch."""
    gradient_norm: float
    """Norm of the accumulated gradient, before clipping."""
    skipped: bool
    """Whether it did not reach the weights, since loss or gradient was not finite."""


@dataclass(slots=True)
class LossSums:
    """Losses of the steps since the host last looked, kept on the device.

    Args:
        device: Where.
    """

    device: torch.device
    _bins: Tensor = field(init=False)
    _steps: list[tuple[int, Tensor]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._bins = torch.zeros(2, 2, NUM_BINS, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def add_errors(self, errors: FrameErrors, timestep_B: Tensor) -> None:
        """Errors of one micro-batch, to the bins of their diffusion times."""
        at_B = timestep_B * NUM_BINS // NUM_STEPS
        for kind, error_B in enumerate((errors.video_B, errors.image_B)):
            if error_B is not None:
                finite_B = torch.isfinite(error_B)
                self._bins[kind, 0].index_add_(
                    0, at_B, error_B.nan_to_num(0, 0, 0).double() * finite_B
                )
                self._bins[kind, 1].index_add_(0, at_B, finite_B.double())

    def add_step(self, step: int, loss: Tensor, norm: Tensor, found_inf: Tensor) -> None:
        """One optimizer step."""
        self._steps.append((step, torch.stack([loss.float(), norm.float(), found_inf.float()])))

    def read(self, ranks: Ranks) -> tuple[list[StepRecord], dict[str, float]]:
        """Steps and mean losses since the last call; here the host waits.

        Returns:
            The steps, and losses named ``loss/video``, ``loss/image`` and ``loss_by_time/video/0``,
            of all ranks.
        """
        table = torch.stack([row for _, row in self._steps]).cpu().tolist()
        steps = [
            StepRecord(step=step, loss=row[0], gradient_norm=row[1], skipped=row[2] > 0)
            for (step, _), row in zip(self._steps, table, strict=True)
        ]
        sums = ranks.mean(self._bins.clone()).cpu()
        self._steps.clear()
        self._bins.zero_()
        named: dict[str, float] = {}
        for kind, name in enumerate(("video", "image")):
            total, count = sums[kind, 0], sums[kind, 1]
            if count.sum() > 0:
                named[f"loss/{name}"] = float(total.sum() / count.sum())
            for at in range(NUM_BINS):
                if count[at] > 0:
                    named[f"loss_by_time/{name}/{at}"] = float(total[at] / count[at])
        return steps, named


class Watchdog:
    """Names the clips of steps whose loss leaps or is not finite; stops a run that has too many.

    Args:
        spike_factor: A loss so many times the running median is a spike.
        max_bad_steps: Steps with a loss or gradient that is not finite, beyond which the run stops.
        clip_ids: The clips of a step.
    """

    def __init__(
        self, spike_factor: float, max_bad_steps: int, clip_ids: Callable[[int], Sequence[str]]
    ) -> None:
        self._factor = spike_factor
        self._max_bad = max_bad_steps
        self._clip_ids = clip_ids
        self._usual: deque[float] = deque(maxlen=MEDIAN_OVER)
        self.num_bad = 0

    def look(self, steps: Sequence[StepRecord]) -> list[dict[str, Any]]:
        """Events of some steps, as lines for the log."""
        events = []
        for step in steps:
            median = statistics.median(self._usual) if self._usual else None
            facts = {"step": step.step, "loss": step.loss, "gradient_norm": step.gradient_norm}
            if step.skipped:
                self.num_bad += 1
                ids = list(self._clip_ids(step.step))
                events.append({"event": "not_finite", **facts, "clip_ids": ids})
            elif (
                len(self._usual) >= MEDIAN_OVER // 10
                and median
                and step.loss > self._factor * median
            ):
                ids = list(self._clip_ids(step.step))
                events.append({"event": "spike", **facts, "median": median, "clip_ids": ids})
            else:
                self._usual.append(step.loss)
        return events

    def stop_if_too_many(self) -> None:
        """Raise TooManyBadSteps once there are more than allowed."""
        if self.num_bad > self._max_bad:
            raise TooManyBadSteps(
                f"{self.num_bad} steps had a loss or gradient that is not finite, "
                f"{self._max_bad} are allowed; the weights never saw them. log.jsonl names "
                f"their clips; `lavie train --replay STEP` runs one again"
            )


class Journal:
    """Curves for TensorBoard (and Weights & Biases), and the same as lines of log.jsonl.

    Args:
        folder: Local folder of the run; None where another rank writes.
        from_step: Steps from here on are written anew: a resumed run forgets what it repeats.
        wandb_project: Also log to this project.
    """

    def __init__(self, folder: Path | None, *, from_step: int, wandb_project: str | None) -> None:
        self._lines: Path | None = None
        self._wandb: Any = None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / "log.jsonl"
        self._forget(from_step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step)
        if wandb_project is not None:
            if importlib.util.find_spec("wandb") is None:
                raise LavieError("watch.wandb_project is set, but the package wandb is missing")
            import wandb

            self._wandb = wandb.init(project=wandb_project, dir=str(folder), resume="allow")

    def _forget(self, from_step: int) -> None:
        assert self._lines is not None
        if not self._lines.exists():
            return
        lines = self._lines.read_text("utf-8").splitlines(keepends=True)
        # The last line of a killed run may be torn.
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["step"] < from_step]
        self._lines.write_text("".join(kept), "utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at a step."""
        if self._lines is None:
            return
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)
        self.line({"step": step, **values})

    def line(self, content: Mapping[str, Any]) -> None:
        """One line of log.jsonl; it has a step."""
        if self._lines is None:
            return
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, sort_keys=True) + "\n")

    def video(self, name: str, frames_THWC: Any, step: int) -> None:
        """A sampled video, uint8 ``[T, H, W, 3]``, as frames side by side."""
        if self._lines is None:
            return
        self._board.add_images(name, frames_THWC, step, dataformats="NHWC")

    def close(self) -> None:
        """Flush."""
        if self._lines is not None:
            self._board.close()
            if self._wandb is not None:
                self._wandb.finish()


@dataclass(slots=True)
class Clock:
    """Where the time since the last look went."""

    begin_s: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    samples: int = 0
    flop: float = 0.0

    def read(self, ranks: Ranks) -> dict[str, float]:
        """Samples a second of all ranks, share of time waiting for data, memory, FLOP/s; starts anew."""
        now = time.monotonic()
        elapsed_s = max(now - self.begin_s, 1e-9)
        rates = {
            "speed/samples_per_s": self.samples / elapsed_s,
            "speed/data_wait_share": self.waited_s / elapsed_s,
        }
        if ranks.device.type == "cpu":
            kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            rates["memory/peak_gib"] = kib / 2**20
        if ranks.device.type == "cuda":
            rates["speed/tflops_per_rank"] = self.flop / elapsed_s / 1e12
            name = torch.cuda.get_device_name(ranks.device)
            peak = next((p for part, p in PEAK_TFLOPS_BF16.items() if part in name), None)
            rates["memory/peak_gib"] = torch.cuda.max_memory_allocated(ranks.device) / 2**30
            if peak is not None:
                rates["speed/utilisation_bf16"] = rates["speed/tflops_per_rank"] / peak
        self.begin_s, self.waited_s, self.samples, self.flop = now, 0.0, 0, 0.0
        return rates


class FlopCounts:
    """Floating-point operations of a step, by the shape of what is fed.

    Counted once a shape, on the meta device, a multiply-add as two; what activation checkpointing
    does again is not counted, so utilisation is of the model's own work.

    Args:
        config: The network.
        trainable: Names of its parameters that learn; the others need no gradients of their own.
    """

    def __init__(self, config: UNetConfig, trainable: frozenset[str]) -> None:
        self._config = config
        self._trainable = trainable
        self._counts: dict[tuple[Any, ...], float] = {}

    def of(self, feed: Feed) -> float:
        """Forward and backward of one micro-batch."""
        key = (tuple(feed.sample_BCFhw.shape), tuple(feed.text.shape), feed.num_images)
        if key not in self._counts:
            self._counts[key] = self._count(feed)
        return self._counts[key]

    def _count(self, feed: Feed) -> float:
        with torch.device("meta"):
            net = UNet(self._config)
            sample, text = torch.empty(feed.sample_BCFhw.shape), torch.empty(feed.text.shape)
            # Adapters have names that the plain network lacks; gradients reach them through all layers.
            sample.requires_grad_(
                not self._trainable & {name for name, _ in net.named_parameters()}
            )
            time_B = torch.empty(feed.timestep_B.shape, dtype=torch.int64)
            level_B = None if feed.noise_level_B is None else time_B
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in self._trainable)
        with FlopCounterMode(display=False) as counter:
            out = net(sample, time_B, text, noise_level_B=level_B, num_images=feed.num_images)
            out.sum().backward()
        return float(counter.get_total_flops())


def local_folder(run_path: str | None) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """Where a run's journal is written: its own folder, or scratch for a run in an object store."""
    if run_path is not None:
        return Path(run_path), None
    scratch = tempfile.TemporaryDirectory(prefix="journal-")
    return Path(scratch.name), scratch
