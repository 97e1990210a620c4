"""Video super-resolution: frames to four times their height and width (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.data.batch import Batch, Sample
from training.data.random_numbers import generator, normal
from training.models.latent_space import LatentSpace
from training.models.layout import fold_frames, unfold_frames
from training.models.schedule import Objective
from training.run_config import TrainConfig
from training.stages.feed import (
    Companions,
    Feed,
    LatentShape,
    clean_latents,
    draw_noise,
    noise_of,
    text_states,
    to_rgb,
)

SCALE = 4  # of height and width; the x4 upscaler's latents have the low resolution's size


@dataclass(frozen=True, slots=True)
class SuperResolution:
    """Noisy latents, noisy low-resolution RGB on three further channels, and its noise level.

    Low resolution is the mean of 4 x 4 pixels; the paper describes no other degradation.
    """

    config: TrainConfig
    """The run."""
    objective: Objective
    """Schedules of latents and of low-resolution frames, and the prediction."""
    latents: LatentSpace
    """Channels of a latent, and pixels per latent."""

    def draw(self, step: int, sample: Sample) -> dict[str, Tensor]:
        """Time, noise and posterior sample; level and noise of the low-resolution frames."""
        drawn = draw_noise(self.config, step, sample, self.latents)
        seed, place = self.config.seed, (step, sample.position)
        latent = LatentShape.of(sample.size_px, SCALE)
        frames = sample.num_video_frames + sample.num_images
        level = generator(seed, "noise_level", *place).integers(
            self.config.loss.max_noise_level + 1
        )
        drawn["noise_level"] = torch.tensor(int(level))
        shape = (3, frames, latent.height, latent.width)
        drawn["low_resolution_eps"] = normal(shape, seed, "low_resolution_eps", *place)
        return drawn

    def feed(self, batch: Batch, companions: Companions) -> Feed:
        """Arguments of the super-resolution network."""
        assert batch.frames_BFCHW is not None, "low-resolution frames are made of pixels"
        assert self.objective.low_resolution_schedule is not None, (
            "an objective of this stage has it"
        )
        x0 = clean_latents(batch, companions, self.objective.latent_scale)
        eps, timestep_B = noise_of(batch), batch.draws["timestep"]
        noisy = self.objective.schedule.add_noise(x0, eps, timestep_B)
        level_B = batch.draws["noise_level"]
        low = self.objective.low_resolution_schedule.add_noise(
            low_resolution(batch.frames_BFCHW), batch.draws["low_resolution_eps"], level_B
        )
        return Feed(
            sample_BCFhw=torch.cat([noisy, low], dim=1),
            timestep_B=timestep_B,
            text=text_states(batch, companions),
            noise_level_B=level_B,
            num_images=batch.num_images,
            x0_BCFhw=x0,
            eps_BCFhw=eps,
        )


def low_resolution(frames_BFCHW: Tensor) -> Tensor:
    """RGB -1 to 1 at a quarter of height and width, ``[B, 3, F, H/4, W/4]``: means of 4 x 4 pixels."""
    rgb_BCFHW = to_rgb(frames_BFCHW)
    small = functional.avg_pool2d(fold_frames(rgb_BCFHW), SCALE)
    return unfold_frames(small, rgb_BCFHW.shape[0])
