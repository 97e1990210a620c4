"""Interpolation: 16 key frames to 61 frames (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.batch import Batch, Sample
from training.data.random_numbers import generator, normal
from training.models.latent_space import LatentSpace
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
)

FRAMES_PER_KEY = 4  # 16 key frames at 0, 4, ..., 60 of 61


def key_of_frame(num_frames: int, device: torch.device | None = None) -> Tensor:
    """Index of the key frame that each frame is conditioned on, ``[T]``: (j + 1) // 4."""
    return (torch.arange(num_frames, device=device) + 1) // FRAMES_PER_KEY


def num_keys(num_frames: int) -> int:
    """Key frames of a clip: every fourth frame, first and last included.

    Raises:
        ValueError: The last frame is not a key frame.
    """
    if num_frames < 5 or num_frames % FRAMES_PER_KEY != 1:
        raise ValueError(
            f"num_frames of interpolation must be 4 k + 1, at least 5 (LaVie: 61), got {num_frames}"
        )
    return num_frames // FRAMES_PER_KEY + 1


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Noisy latents, and on as many further channels the latents of the nearest key frame.

    An image is a film of one frame, which is its own key frame.
    """

    config: TrainConfig
    """The run."""
    objective: Objective
    """Schedule and prediction."""
    latents: LatentSpace
    """Channels of a latent, and pixels per latent."""

    def draw(self, step: int, sample: Sample) -> dict[str, Tensor]:
        """Time, noise and posterior sample; time and noise of the key frames where asked for."""
        drawn = draw_noise(self.config, step, sample, self.latents)
        largest = self.config.loss.condition_noise_steps
        if largest:
            seed, place = self.config.seed, (step, sample.position)
            latent = LatentShape.of(sample.size_px, self.latents.downsampling)
            keys = self._num_keys(sample.num_video_frames) + sample.num_images
            shape = (self.latents.channels, keys, latent.height, latent.width)
            time = int(generator(seed, "condition_timestep", *place).integers(largest))
            drawn["condition_timestep"] = torch.tensor(time)
            drawn["condition_eps"] = normal(shape, seed, "condition_eps", *place)
        return drawn

    def feed(self, batch: Batch, companions: Companions) -> Feed:
        """Arguments of the interpolation network."""
        x0 = clean_latents(batch, companions, self.objective.latent_scale)
        eps, timestep_B = noise_of(batch), batch.draws["timestep"]
        noisy = self.objective.schedule.add_noise(x0, eps, timestep_B)
        return Feed(
            sample_BCFhw=torch.cat([noisy, self._condition(x0, batch)], dim=1),
            timestep_B=timestep_B,
            text=text_states(batch, companions),
            num_images=batch.num_images,
            x0_BCFhw=x0,
            eps_BCFhw=eps,
        )

    def _condition(self, x0_BCFhw: Tensor, batch: Batch) -> Tensor:
        frames, keys = batch.num_video_frames, self._num_keys(batch.num_video_frames)
        device = x0_BCFhw.device
        images = torch.arange(batch.num_images, device=device)
        of_frame = torch.cat([key_of_frame(frames, device), keys + images])
        at = torch.cat([FRAMES_PER_KEY * torch.arange(keys, device=device), frames + images])
        condition = x0_BCFhw[:, :, at]
        if "condition_eps" in batch.draws:
            condition = self.objective.schedule.add_noise(
                condition, batch.draws["condition_eps"], batch.draws["condition_timestep"]
            )
        return condition[:, :, of_frame]

    def _num_keys(self, num_frames: int) -> int:
        return num_keys(num_frames) if num_frames else 0
