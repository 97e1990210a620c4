"""One batch of a run again, alone: which clips, what they show, what the network makes of them.

For a loss that leapt or was not finite: order, crops, noise and times are functions of the step, so
the batch comes back whole, and every sample can be looked at by itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from curation.errors import UsageError
from training.data.batch import Batch
from training.distributed import process_group
from training.losses import frame_errors, target
from training.run_config import TrainConfig
from training.trainer import Hooks, Trainer

FRAMES_SHOWN = 8
WORDS_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedSample:
    """What one sample of the batch was and gave."""

    position: int
    """Position in the global batch."""
    clip_id: str
    """Id of the clip; empty where the sample holds images only."""
    image_ids: tuple[str, ...]
    """Ids of the images."""
    captions: tuple[str, ...]
    """The clip's, then the images'; dropped ones replaced."""
    timestep: int
    """Diffusion time."""
    video_error: float | None
    """Mean squared error of the frames; None without a clip."""
    image_error: float | None
    """Mean squared error of the images; None without images."""


def replay(config: TrainConfig, run: str, step: int, console: Console) -> list[ReplayedSample]:
    """Run one step's batch, sample by sample, with the newest weights that are not later.

    Writes ``replay/step-N.json`` and a contact sheet of the frames into the run's folder, and
    prints a table.

    Raises:
        UsageError: for a step that the run does not have.
    """
    if not 0 <= step < config.num_steps:
        raise UsageError(f"--replay must be 0 to {config.num_steps - 1}, got {step}")
    with process_group() as ranks:
        # Workers and journal are for training; a replay leaves no trace in either.
        alone = replace(config, data=replace(config.data, num_workers=0))
        trainer = Trainer(alone, run, ranks, Hooks(), up_to=step)
        samples, sheets = [], []
        for position in range(config.data.batch_size):
            batch = trainer.data.batch(step, [position], draw=trainer.stage.draw)
            samples.append(_again(trainer, batch))
            if batch.frames_BFCHW is not None:
                sheets.append(_strip(batch))
        trainer.close()
    folder = trainer.folder / "replay"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(sample) for sample in samples], indent=1) + "\n"
    (folder / f"step-{step:08d}.json").write_text(text, "utf-8")
    console.print(_table(samples, step, trainer.step))
    if sheets:
        Image.fromarray(np.concatenate(sheets)).save(folder / f"step-{step:08d}.png")
    console.print(f"written: {folder}", highlight=False, soft_wrap=True)
    return samples


@torch.no_grad()
def _again(trainer: Trainer, batch: Batch) -> ReplayedSample:
    stage = trainer.stage
    on_device = batch.to(trainer.ranks.device)
    feed = stage.feed(on_device, trainer.learner.companions)
    predicted = trainer.learner.net(
        feed.sample_BCFhw,
        feed.timestep_B,
        feed.text,
        noise_level_B=feed.noise_level_B,
        num_images=feed.num_images,
    )
    wanted = target(stage.objective, feed.x0_BCFhw, feed.eps_BCFhw, feed.timestep_B)
    errors = frame_errors(predicted, wanted, None, batch.num_video_frames)
    return ReplayedSample(
        position=batch.positions[0],
        clip_id=batch.clip_ids[0],
        image_ids=batch.image_ids[0],
        captions=batch.captions[0],
        timestep=int(feed.timestep_B[0]),
        video_error=None if errors.video_B is None else float(errors.video_B[0]),
        image_error=None if errors.image_B is None else float(errors.image_B[0]),
    )


def _strip(batch: Batch) -> Any:
    """Some frames of a sample and its images side by side, uint8 ``[H, W', 3]``."""
    assert batch.frames_BFCHW is not None
    frames_FHWC = batch.frames_BFCHW[0].permute(0, 2, 3, 1).cpu().numpy()
    count = len(frames_FHWC)
    shown = np.unique(np.linspace(0, count - 1, min(FRAMES_SHOWN, count)).round().astype(int))
    return np.concatenate(list(frames_FHWC[shown]), axis=1)


def _table(samples: list[ReplayedSample], step: int, weights_step: int) -> Table:
    table = Table(title=f"step {step} with the weights of step {weights_step}")
    for header in ("at", "clip", "time", "video error", "image error", "caption"):
        table.add_column(header, overflow="fold")
    for sample in samples:
        errors = [
            "" if error is None else f"{error:.5f}"
            for error in (sample.video_error, sample.image_error)
        ]
        clip = sample.clip_id or ", ".join(sample.image_ids)
        caption = sample.captions[0][:WORDS_SHOWN]
        table.add_row(str(sample.position), clip, str(sample.timestep), *errors, caption)
    return table
