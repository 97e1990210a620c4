"""Trains the small image autoencoder on frames of curated clips: `lavie train autoencoder`.

The encoder is computed, not learnt: principal components of all patches that are trained on. The
decoder then learns to invert it under noise, since what a denoising network samples is never quite a
latent. Which frames and noise a step has is a function of seed and step, so the same command gives
the same weights.

Shape letters: N frames, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from training.data.films import FramesConfig, parts_of
from training.data.random_numbers import generator, normal
from training.models.patch_autoencoder import (
    PatchAutoencoder,
    PatchAutoencoderConfig,
    PatchStatistics,
)
from training.optim import learning_rate
from training.run_config import OptimConfig, Phase

PIXEL_RANGE = 2.0  # frames are -1 to 1
AT_ONCE = 64  # frames that are measured together


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """One run: which frames, which network, how long."""

    frames: FramesConfig = field(default_factory=FramesConfig)
    """Frames to learn from; their size is in multiples of a patch."""
    network: PatchAutoencoderConfig = field(default_factory=PatchAutoencoderConfig)
    """What the autoencoder is made of."""
    steps: int = 3000
    """Optimizer steps of the decoder, at least 1."""
    batch_size: int = 8
    """Frames of a step, at least 1."""
    learning_rate: float = 1e-3
    """AdamW's learning rate after 50 steps of warm-up, above 0; it falls to 0 along a cosine."""
    seed: int = 0
    """Seed of weights, held-out clips, drawn frames and noise."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        px = self.network.patch_px
        height, width = self.frames.size_px
        if height < px or width < px or height % px or width % px:
            raise ValueError(f"size_px must be multiples of patch_px, {px}, got {height}x{width}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Peak signal-to-noise ratio of frames that went through and back, in dB over all their pixels."""

    plain: float
    """Of the linear inversion: plain principal components."""
    decoded: float
    """Of the decoder."""
    decoded_with_noise: float
    """Of the decoder, from latents with the noise that it was trained with."""


def with_components(config: AutoencoderConfig, frames_NCHW: Tensor) -> PatchAutoencoder:
    """An autoencoder whose encoder fits some frames, uint8, and whose decoder is the plain inversion."""
    statistics = PatchStatistics(config.network.patch_px)
    for part in torch.split(frames_NCHW, AT_ONCE):
        statistics.add(parts_of(part, config.frames.size_px, None))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = PatchAutoencoder(config.network)
    vae.set_components(statistics.components())
    return vae


OnStep = Callable[[int, float], None]
"""Told the number of steps done and the PSNR of the last step's frames, dB."""


def train_decoder(
    vae: PatchAutoencoder,
    frames_NCHW: Tensor,
    config: AutoencoderConfig,
    on_step: OnStep | None = None,
) -> None:
    """Let the decoder learn to bring frames back from their latents under noise."""
    schedule = OptimConfig(warmup_steps=min(50, config.steps), decay="cosine")
    phase = Phase(steps=config.steps, learning_rate=config.learning_rate)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, weight_decay=0.0)
    vae.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, phase, step)
        draw = generator(config.seed, "autoencoder_frames", step)
        chosen = torch.from_numpy(draw.integers(len(frames_NCHW), size=config.batch_size))
        wanted = parts_of(frames_NCHW[chosen], config.frames.size_px, draw)
        loss = functional.mse_loss(vae.decode(_noisy(vae, wanted, config.seed, step))[0], wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, psnr(loss.item()))
    vae.eval().requires_grad_(False)


def _noisy(vae: PatchAutoencoder, frames_NCHW: Tensor, seed: int, step: int) -> Tensor:
    mean, logvar = vae.encode(frames_NCHW)[0].parameters.chunk(2, dim=1)
    return mean + (0.5 * logvar).exp() * normal(mean.shape, seed, "autoencoder_noise", step)


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of frames that span -1 to 1."""
    return 10 * math.log10(PIXEL_RANGE**2 / max(mean_squared_error, 1e-12))


@torch.no_grad()
def fidelity(vae: PatchAutoencoder, frames_NCHW: Tensor, seed: int) -> Fidelity:
    """How well frames, uint8, come back; what is outside -1 to 1 is cut off, as in a video."""
    errors = {"plain": 0.0, "decoded": 0.0, "decoded_with_noise": 0.0}
    for number, part in enumerate(torch.split(frames_NCHW, AT_ONCE)):
        wanted = parts_of(part, (part.shape[-2], part.shape[-1]), None)
        mean = vae.encode(wanted)[0].parameters.chunk(2, dim=1)[0]
        found = {
            "plain": vae.inverted(mean),
            "decoded": vae.decode(mean)[0],
            "decoded_with_noise": vae.decode(_noisy(vae, wanted, seed, -1 - number))[0],
        }
        for name, pixels in found.items():
            error = functional.mse_loss(pixels.clamp(-1, 1), wanted).item()
            errors[name] += error * len(part) / len(frames_NCHW)
    return Fidelity(**{name: psnr(error) for name, error in errors.items()})
