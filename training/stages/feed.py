"""What a stage hands to the network, and what all stages share on the way there.

Shape letters: B samples, C channels, T video frames, M images, F = T + M, H W pixels, h w latents'
height and width, K = min(1, T) + M texts, L tokens, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.data.batch import Batch, Sample
from training.data.random_numbers import generator, normal
from training.losses import with_offset
from training.models.autoencoder import Autoencoder
from training.models.latent_space import LatentSpace
from training.models.schedule import Objective
from training.models.text_encoder import TextEncoder
from training.run_config import TrainConfig


@dataclass(frozen=True, slots=True)
class Companions:
    """The frozen models beside the network; None where everything was encoded beforehand."""

    autoencoder: Autoencoder | None
    """From pixels to latents."""
    text_encoder: TextEncoder | None
    """From captions to text states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Arguments of the network, and what its answer is compared with."""

    sample_BCFhw: Tensor
    """Noisy latents with their conditioning channels."""
    timestep_B: Tensor
    """Diffusion times."""
    text: Tensor
    """``[B, L, D]``, or ``[B, K, L, D]`` where there are images."""
    noise_level_B: Tensor | None = None
    """Noise level of the low-resolution frames."""
    num_images: int
    """M."""
    x0_BCFhw: Tensor
    """Clean latents."""
    eps_BCFhw: Tensor
    """The noise in them."""


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Height and width of the latents of a frame size."""

    height: int
    width: int

    @classmethod
    def of(cls, size_px: tuple[int, int], downsampling: int) -> LatentShape:
        """Pixels through the autoencoder's downsampling."""
        return cls(size_px[0] // downsampling, size_px[1] // downsampling)


def draw_noise(
    config: TrainConfig, step: int, sample: Sample, latents: LatentSpace
) -> dict[str, Tensor]:
    """Time, noise and the autoencoder's own sample, which every stage needs; on the CPU.

    Returns:
        timestep, an integer; eps and posterior, ``[C, F, h, w]``; offset ``[C, K]`` where asked for.
    """
    seed, place = config.seed, (step, sample.position)
    latent = LatentShape.of(sample.size_px, latents.downsampling)
    frames = sample.num_video_frames + sample.num_images
    shape = (latents.channels, frames, latent.height, latent.width)
    time = int(
        generator(seed, "timestep", *place).integers(Objective.of(config.stage).schedule.num_steps)
    )
    drawn = {
        "timestep": torch.tensor(time),
        "eps": normal(shape, seed, "eps", *place),
        "posterior": normal(shape, seed, "posterior", *place),
    }
    if config.loss.offset_noise:
        texts = min(1, sample.num_video_frames) + sample.num_images
        shift = normal((latents.channels, texts), seed, "offset", *place)
        drawn["offset"] = config.loss.offset_noise * shift
    return drawn


def to_rgb(frames_BFCHW: Tensor) -> Tensor:
    """uint8 frames to RGB -1 to 1, channels before frames, ``[B, 3, F, H, W]`` fp32."""
    return frames_BFCHW.transpose(1, 2).float() / 127.5 - 1


def clean_latents(batch: Batch, companions: Companions, scale: float) -> Tensor:
    """x_0 of every frame: the posterior's mean plus its deviation times the drawn noise, scaled.

    Returns:
        ``[B, C, F, h, w]``, fp32.
    """
    mean, std = _posterior(batch, companions)
    return scale * (mean + std * batch.draws["posterior"])


def _posterior(batch: Batch, companions: Companions) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, unscaled fp32, computed or as encoded before."""
    if batch.mean_BCFhw is not None and batch.logvar_BCFhw is not None:
        logvar = batch.logvar_BCFhw.float().clamp(-30, 20)
        return batch.mean_BCFhw.float(), (0.5 * logvar).exp()
    assert companions.autoencoder is not None, "pixels need the autoencoder"
    assert batch.frames_BFCHW is not None, "a batch holds pixels or moments"
    mean, std = companions.autoencoder.encode_moments(to_rgb(batch.frames_BFCHW))
    return mean.float(), std.float()


def encoded(batch: Batch, companions: Companions) -> Batch:
    """The same batch with moments and text states, so that feeding it again costs neither model."""
    mean, std = _posterior(batch, companions)
    text = text_states(batch, companions)
    return replace(
        batch,
        mean_BCFhw=mean,
        logvar_BCFhw=2 * std.log(),
        text_BKLD=text if batch.num_images else text[:, None],
    )


def text_states(batch: Batch, companions: Companions) -> Tensor:
    """States of every caption, ``[B, K, L, D]``, or ``[B, L, D]`` without images."""
    if batch.text_BKLD is not None:
        states = batch.text_BKLD.float()
    else:
        assert companions.text_encoder is not None, "captions need the text encoder"
        prompts = [caption for captions in batch.captions for caption in captions]
        encoded = companions.text_encoder.encode(prompts)
        states = encoded.unflatten(0, (len(batch.captions), -1))
    return states if batch.num_images else states[:, 0]


def noise_of(batch: Batch) -> Tensor:
    """eps, with the offset of each clip and image where one was drawn."""
    eps = batch.draws["eps"]
    if "offset" in batch.draws:
        return with_offset(eps, batch.draws["offset"], batch.num_video_frames)
    return eps
