"""Between pixels and latents: the image autoencoders that LaVie keeps frozen.

Base and interpolation use Stable Diffusion 1.4's (an eighth of the size, latents times 0.18215),
super-resolution the x4 upscaler's (a quarter, times 0.08333), small cascades a `PatchAutoencoder`. All
see one frame at a time. Which one a folder holds is told by its config.json.

Shape letters: B samples, T frames, C latent channels, H W pixels, h w latents' height and width.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.latent_space import LatentSpace
from training.models.layout import fold_frames, unfold_frames
from training.models.patch_autoencoder import CLASS_NAME, CONFIG, WEIGHTS, PatchAutoencoder


class ImageAutoencoder(Protocol):
    """What an image autoencoder offers, under the names of diffusers' AutoencoderKL."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Contents of config.json, of which `LatentSpace` is told."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which it computes."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    def encode(self, x: Tensor, return_dict: bool) -> Any:
        """Frames -1 to 1 ``[N, 3, H, W]`` to a tuple of a posterior with `parameters`."""

    def decode(self, z: Tensor, return_dict: bool) -> Any:
        """Latents ``[N, C, h, w]`` to a tuple of frames."""

    def enable_tiling(self) -> None:
        """Bound the memory of large frames."""

    def disable_tiling(self) -> None:
        """Take whole frames."""

    def save_pretrained(self, folder: Path, *, safe_serialization: bool) -> None:
        """Write config.json and safetensors."""


class Autoencoder(nn.Module):
    """A frozen image autoencoder applied to every frame of a video.

    Args:
        vae: The image autoencoder, an `ImageAutoencoder` that is a module.
        frames_at_once: Frames that go through it together; bounds memory, leaves the numbers. At
            1280x2048 the x4 upscaler's decoder needs 80 TFLOP a frame.
    """

    def __init__(self, vae: Any, *, frames_at_once: int = 4) -> None:
        super().__init__()
        if frames_at_once < 1:
            raise ValueError(f"frames_at_once must be at least 1, got {frames_at_once}")
        self.vae: ImageAutoencoder = vae.eval().requires_grad_(False)
        self.frames_at_once = frames_at_once

    @classmethod
    def load(cls, folder: Path, *, frames_at_once: int = 4) -> "Autoencoder":
        """Read a diffusers folder (config.json and safetensors), in fp32.

        The x4 upscaler's decoder overflows in fp16; cast with care.
        """
        _check_folder(folder, CONFIG, WEIGHTS)
        if json.loads((folder / CONFIG).read_text("utf-8")).get("_class_name") == CLASS_NAME:
            return cls(PatchAutoencoder.from_pretrained(folder), frames_at_once=frames_at_once)
        ensure_torchvision()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        vae: Any = AutoencoderKL.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
        )
        return cls(vae, frames_at_once=frames_at_once)

    def save(self, folder: Path) -> None:
        """Write a diffusers folder."""
        self.vae.save_pretrained(folder, safe_serialization=True)

    @property
    def latents(self) -> LatentSpace:
        """Channels, size and scale of its latents."""
        return LatentSpace.of_config(self.vae.config)

    @property
    def scale(self) -> float:
        """Factor between the autoencoder's latents and those of the network."""
        return self.latents.scale

    @property
    def downsampling(self) -> int:
        """Pixels per latent along height and width: 8 or 4."""
        return self.latents.downsampling

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Sample the posterior of every frame, times `scale`.

        Args:
            video_BCTHW: RGB, -1 to 1, ``[B, 3, T, H, W]``; H and W multiples of `downsampling`.
            noise: Generator of the sample, on the video's device.

        Returns:
            Latents ``[B, C, T, h, w]``.
        """
        mean, std = self.encode_moments(video_BCTHW)
        drawn = torch.randn(mean.shape, generator=noise, device=mean.device, dtype=mean.dtype)
        return self.scale * (mean + std * drawn)

    @torch.no_grad()
    def encode_moments(self, video_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every frame's posterior, unscaled, ``[B, C, T, h, w]``."""
        shape = tuple(video_BCTHW.shape)
        if len(shape) != 5 or shape[1] != 3:
            raise ValueError(f"video must be [B, 3, T, H, W], got shape {shape}")
        if shape[3] % self.downsampling or shape[4] % self.downsampling:
            raise ValueError(
                f"video must have height and width that are multiples of {self.downsampling}, "
                f"got {shape[3]}x{shape[4]}"
            )
        moments = self._by_frames(self._moments, video_BCTHW)
        mean, logvar = moments.chunk(2, dim=1)
        # diffusers' posterior clamps here; without it a flat frame would overflow
        return mean, (0.5 * logvar.clamp(-30, 20)).exp()

    @torch.no_grad()
    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Frames of the network's latents ``[B, C, T, h, w]``, RGB about -1 to 1, not clamped."""
        shape = tuple(latents_BCTHW.shape)
        channels = self.latents.channels
        if len(shape) != 5 or shape[1] != channels:
            raise ValueError(f"latents must be [B, {channels}, T, h, w], got shape {shape}")
        return self._by_frames(self._pixels, latents_BCTHW / self.scale)

    def _moments(self, frames_NCHW: Tensor) -> Tensor:
        posterior: Any = self.vae.encode(frames_NCHW.to(self.vae.dtype), return_dict=False)[0]
        moments: Tensor = posterior.parameters
        return moments

    def _pixels(self, latents_NCHW: Tensor) -> Tensor:
        pixels: Tensor = self.vae.decode(latents_NCHW.to(self.vae.dtype), return_dict=False)[0]
        return pixels

    def _by_frames(self, apply: Callable[[Tensor], Tensor], x_BCTHW: Tensor) -> Tensor:
        frames = torch.split(fold_frames(x_BCTHW), self.frames_at_once)
        return unfold_frames(torch.cat([apply(part) for part in frames]), x_BCTHW.shape[0])


def _check_folder(folder: Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no autoencoder in {folder}: {name} is missing")
