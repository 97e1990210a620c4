"""Base: text to 16 frames, jointly with images (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.batch import Batch, Sample
from training.models.latent_space import LatentSpace
from training.models.schedule import Objective
from training.run_config import TrainConfig
from training.stages.feed import (
    Companions,
    Feed,
    clean_latents,
    draw_noise,
    noise_of,
    text_states,
)


@dataclass(frozen=True, slots=True)
class Base:
    """Noisy latents of video and images, each with its own text; one time a sample."""

    config: TrainConfig
    """The run."""
    objective: Objective
    """Schedule and prediction."""
    latents: LatentSpace
    """Channels of a latent, and pixels per latent."""

    def draw(self, step: int, sample: Sample) -> dict[str, Tensor]:
        """Time, noise and posterior sample."""
        return draw_noise(self.config, step, sample, self.latents)

    def feed(self, batch: Batch, companions: Companions) -> Feed:
        """Arguments of the base network.

        With first-frame channels the sample is [noisy C | mask 1 | masked latents C]: the mask is 0
        on the given first frame and 1 on frames to generate, whose masked latents are 0; images
        are generated whole (SEINE's layout).
        """
        x0 = clean_latents(batch, companions, self.objective.latent_scale)
        eps, timestep_B = noise_of(batch), batch.draws["timestep"]
        noisy = self.objective.schedule.add_noise(x0, eps, timestep_B)
        if self.config.model.first_frame_channels:
            noisy = torch.cat([noisy, first_frame_condition(x0, batch.num_video_frames)], dim=1)
        return Feed(
            sample_BCFhw=noisy,
            timestep_B=timestep_B,
            text=text_states(batch, companions),
            num_images=batch.num_images,
            x0_BCFhw=x0,
            eps_BCFhw=eps,
        )


def first_frame_condition(x0_BCFhw: Tensor, num_video_frames: int) -> Tensor:
    """Mask and masked latents, ``[B, 1 + C, F, h, w]``: frame 0 is given, all else is not."""
    mask = torch.ones_like(x0_BCFhw[:, :1])
    if num_video_frames:
        mask[:, :, 0] = 0
    return torch.cat([mask, x0_BCFhw * (1 - mask)], dim=1)
