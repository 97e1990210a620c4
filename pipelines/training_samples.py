"""Videos sampled in mid-training with the averaged weights, so that a person can look.

Base samples from the prompts of the configuration. Interpolation and super-resolution continue a
held-out clip: its key frames, or a small copy of it, with its own caption.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from curation.errors import UsageError
from inference.interpolation import InterpolationPipeline
from inference.super_resolution import SuperResolutionPipeline
from inference.text_to_video import LaViePipeline
from inference.video_file import to_bytes, write_video
from training.data.batch import Batch
from training.models.exported import ExportedModel
from training.run_config import TrainConfig
from training.stages.interpolation import FRAMES_PER_KEY
from training.stages.super_resolution import low_resolution
from training.trainer import Trainer

logger = logging.getLogger(__name__)

NUM_STEPS = 25  # half of the release's: enough to see, and cheap


def check_sampling(config: TrainConfig) -> None:
    """Refuse settings under which videos cannot be sampled, before the first step.

    Raises:
        UsageError: names the setting.
    """
    if config.watch.sample_every_steps is None:
        return
    if config.scale.parallel == "fsdp":
        raise UsageError("--watch.sample-every-steps needs scale.parallel ddp, got fsdp")
    encoded = all(source.encoded for source in config.data.sources)
    if encoded and config.model.companions is None:
        raise UsageError(
            "--watch.sample-every-steps needs the autoencoder and text encoder: name their folder "
            "with --model.companions"
        )
    if encoded and config.stage != "base":
        raise UsageError(
            f"--watch.sample-every-steps: sampling {config.stage} in mid-training starts from held-out "
            f"pixels, the sources are encoded"
        )
    if config.model.first_frame_channels:
        raise UsageError(
            "--watch.sample-every-steps samples from text alone, model.first_frame_channels needs "
            "a frame; leave one of them out"
        )


@dataclass(slots=True)
class VideoSamples:
    """Hook of the trainer that writes ``samples/step-N/*.mp4`` into the run; rank 0 only."""

    def __call__(self, trainer: Trainer, step: int) -> None:
        """Sample with the weights that the trainer has put in place."""
        if not trainer.ranks.is_first:
            return
        trainer.learner.net.eval()
        for number, (prompt, frames, fps) in enumerate(_videos(trainer)):
            path = Path(trainer.folder) / "samples" / f"step-{step:08d}" / f"{number}.mp4"
            description = {"prompt": prompt, "step": step, "seed": number}
            write_video(path, list(frames), fps=fps, description=description)
            trainer.journal.video(f"samples/{number}", frames, step)
        trainer.learner.net.train()
        logger.info("sampled videos of step %s", step)


def _videos(trainer: Trainer) -> list[tuple[str, NDArray[np.uint8], float]]:
    config = trainer.config
    model = ExportedModel(
        net=trainer.learner.net,
        objective=trainer.stage.objective,
        autoencoder=trainer.learner.companions.autoencoder,
        text_encoder=trainer.learner.companions.text_encoder,
    )
    if config.stage == "base":
        pipeline = LaViePipeline.from_model(model)
        height, width = config.phases[-1].sizes_px[0]
        size = {"height": height, "width": width, "num_frames": config.sample.num_frames}
        return [
            (prompt, _frames(pipeline, seed, prompt, **size), config.sample.fps)
            for seed, prompt in enumerate(config.watch.sample_prompts)
        ]
    clip = _held_out_clip(trainer)
    if clip is None:
        return []
    prompt = clip.captions[0][0]
    assert clip.frames_BFCHW is not None, "checked before the first step"
    if config.stage == "interpolation":
        keys = clip.frames_BFCHW[0, ::FRAMES_PER_KEY].permute(0, 2, 3, 1).cpu().numpy()
        frames = _frames(InterpolationPipeline.from_model(model), 0, prompt, video=keys)
        return [(prompt, frames, config.sample.fps)]
    small = (low_resolution(clip.frames_BFCHW)[0].permute(1, 2, 3, 0) / 2 + 0.5).cpu().numpy()
    video = to_bytes(small, rounds=True)
    frames = _frames(SuperResolutionPipeline.from_model(model), 0, prompt, video=video)
    return [(prompt, frames, config.sample.fps)]


def _held_out_clip(trainer: Trainer) -> Batch | None:
    """The first held-out clip, always the same; None where nothing is held out."""
    held_out = trainer.data.held_out(num_samples=1, draw=trainer.stage.draw)
    return next((batch for batch in held_out if batch.kind == "video"), None)


def _frames(pipeline: Any, seed: int, prompt: str, **arguments: Any) -> NDArray[np.uint8]:
    """Frames of one video, uint8 ``[T, H, W, 3]``; noise from the CPU, alike on every machine."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    output = pipeline(
        prompt,
        num_inference_steps=NUM_STEPS,
        generator=generator,
        output_type="np",
        **arguments,
    )
    return to_bytes(output.frames[0], rounds=pipeline.rounds)
