"""An image autoencoder for small budgets: principal components of patches, and a decoder that learns.

The encoder is fixed and linear: a latent holds the first components of its patch of pixels, the
axes along which the patches of a set of films vary most (Pearson 1901), each divided by the square
root of its deviation, so that fine ones are not lost beside the brightness, nor made as loud as it.
Plain inversion is the best that a linear decoder can do; a small convolutional one adds what
neighbouring patches tell.

It answers to the names of diffusers' AutoencoderKL, so all that takes one takes this.

Shape letters: N frames, C channels, H W pixels, h w latents, P numbers of a patch, K components.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from training.models.state import fill, read_safetensors

CLASS_NAME = "PatchAutoencoder"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchAutoencoderConfig:
    """What the autoencoder is made of."""

    latent_channels: int = 8
    """Components that are kept of a patch, K."""
    patch_px: int = 8
    """Height and width of a patch: pixels per latent."""
    scaling_factor: float = 1.0
    """Factor between these latents and those of the network; they have unit power already."""
    posterior_std: float = 0.04
    """Deviation of the noise that latents are trained with, of unit power: what sampling gets wrong, the
    decoder must bear."""
    width: int = 128
    """Channels of the decoder at the latents' size."""
    num_blocks: int = 4
    """Residual blocks of the decoder at the latents' size."""
    fine_width: int = 24
    """Channels of the decoder at half the frames' size."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that no autoencoder can be built from."""
        if self.patch_px < 4 or self.patch_px % 4:
            raise ValueError(f"patch_px must be a multiple of 4, got {self.patch_px}")
        if not 1 <= self.latent_channels <= self.patch_size:
            raise ValueError(
                f"latent_channels must be 1 to the {self.patch_size} numbers of a patch, got "
                f"{self.latent_channels}"
            )
        if self.posterior_std <= 0:
            raise ValueError(f"posterior_std must be positive, got {self.posterior_std}")
        for name in ("width", "num_blocks", "fine_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def patch_size(self) -> int:
        """P, numbers of a patch of RGB."""
        return 3 * self.patch_px**2


@dataclass(frozen=True, slots=True)
class Posterior:
    """Mean and log-variance of latents, under diffusers' name."""

    parameters: Tensor
    """``[N, 2 C, h, w]``."""


class PatchAutoencoder(nn.Module):
    """Frames -1 to 1 to latents and back; see the module's docstring.

    Args:
        config: What it is made of. The components are zero until `set_components`.
    """

    def __init__(self, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self._config = config
        channels, size, px = config.latent_channels, config.patch_size, config.patch_px
        self.register_buffer("mean_P", torch.zeros(size))
        self.register_buffer("analysis_KP", torch.zeros(channels, size))
        self.register_buffer("synthesis_PK", torch.zeros(size, channels))
        self.mean_P: Tensor
        self.analysis_KP: Tensor
        self.synthesis_PK: Tensor
        self.conv_in = nn.Conv2d(channels, config.width, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(config.width) for _ in range(config.num_blocks)])
        self.grow = nn.Conv2d(config.width, config.fine_width * (px // 2) ** 2, 1)
        self.fine = _Block(config.fine_width)
        self.conv_out = nn.Conv2d(config.fine_width, 3 * 2**2, 3, padding=1)
        nn.init.zeros_(
            self.conv_out.weight
        )  # before it has learnt, the decoder is the plain inversion
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    @property
    def config(self) -> Mapping[str, Any]:
        """Contents of config.json, as diffusers keeps them."""
        return {"_class_name": CLASS_NAME, **asdict(self._config)}

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which it computes."""
        return self.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.conv_in.weight.device

    def set_components(self, components: Components) -> None:
        """Fix the encoder, and the inversion that the decoder starts from."""
        kept = slice(self._config.latent_channels)
        std_K = components.std_K[kept].clamp(min=float(components.std_K[0]) * 1e-6 + 1e-12)
        loudness_K = std_K.sqrt()
        power = std_K.mean().sqrt()  # root mean square of std / sqrt(std)
        gain_K = 1 / (loudness_K * power)
        axes_KP = components.axes_KP[kept]
        self.mean_P.copy_(components.mean_P)
        self.analysis_KP.copy_(axes_KP * gain_K[:, None])
        self.synthesis_PK.copy_(axes_KP.T / gain_K)

    def encode(self, frames_NCHW: Tensor, *, return_dict: bool = False) -> tuple[Posterior]:
        """Latents of frames -1 to 1, ``[N, 3, H, W]`` to ``[N, 2 C, h, w]``; a tuple, as diffusers gives."""
        px = self._config.patch_px
        patches_NPhw = functional.pixel_unshuffle(frames_NCHW, px)
        mean = functional.conv2d(
            patches_NPhw - self.mean_P[:, None, None], self.analysis_KP[:, :, None, None]
        )
        logvar = torch.full_like(mean, 2 * math.log(self._config.posterior_std))
        return (Posterior(torch.cat([mean, logvar], dim=1)),)

    def decode(self, latents_NChw: Tensor, *, return_dict: bool = False) -> tuple[Tensor]:
        """Frames about -1 to 1 of latents ``[N, C, h, w]``; a tuple, as diffusers gives."""
        return (self.inverted(latents_NChw) + self._correction(latents_NChw),)

    def inverted(self, latents_NChw: Tensor) -> Tensor:
        """The linear inversion alone: plain principal components."""
        patches_NPhw = functional.conv2d(latents_NChw, self.synthesis_PK[:, :, None, None])
        return functional.pixel_shuffle(
            patches_NPhw + self.mean_P[:, None, None], self._config.patch_px
        )

    def _correction(self, latents_NChw: Tensor) -> Tensor:
        h = self.conv_in(latents_NChw)
        for block in self.blocks:
            h = block(h)
        h = functional.pixel_shuffle(self.grow(functional.silu(h)), self._config.patch_px // 2)
        pixels: Tensor = self.conv_out(functional.silu(self.fine(h)))
        return functional.pixel_shuffle(pixels, 2)

    def enable_tiling(self) -> None:
        """Nothing to do: whole frames take little memory."""

    def disable_tiling(self) -> None:
        """See `enable_tiling`."""

    def save_pretrained(self, folder: Path, *, safe_serialization: bool = True) -> None:
        """Write config.json and safetensors, as diffusers names them."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(self.config), indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: Path) -> PatchAutoencoder:
        """Read what `save_pretrained` wrote, in fp32.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: It is something else.
        """
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        try:
            config = PatchAutoencoderConfig(**{k: values[k] for k in values if k != "_class_name"})
        except TypeError as error:
            raise ValueError(f"{folder / CONFIG} is not a {CLASS_NAME}'s: {error}") from error
        vae = cls(config)
        fill(vae, read_safetensors(folder / WEIGHTS), str(folder / WEIGHTS))
        return vae.float()


class _Block(nn.Module):
    """Two convolutions around which the input goes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same."""
        h = self.conv1(functional.silu(x_NCHW))
        out: Tensor = x_NCHW + self.conv2(functional.silu(h))
        return out


@dataclass(frozen=True, slots=True)
class Components:
    """Axes along which patches vary, the longest first."""

    mean_P: Tensor
    """Of all patches."""
    axes_KP: Tensor
    """Unit vectors at right angles."""
    std_K: Tensor
    """Deviation along each."""


class PatchStatistics:
    """Mean and covariance of patches, taken in frame by frame, in float64.

    Args:
        patch_px: Height and width of a patch.
    """

    def __init__(self, patch_px: int) -> None:
        size = 3 * patch_px**2
        self._patch_px, self._count = patch_px, 0
        self._sum_P = torch.zeros(size, dtype=torch.float64)
        self._products_PP = torch.zeros(size, size, dtype=torch.float64)

    def add(self, frames_NCHW: Tensor) -> None:
        """Take in frames -1 to 1, ``[N, 3, H, W]``."""
        patches_NPhw = functional.pixel_unshuffle(frames_NCHW, self._patch_px)
        rows = patches_NPhw.movedim(1, -1).flatten(0, -2).double()
        self._count += len(rows)
        self._sum_P += rows.sum(dim=0)
        self._products_PP += rows.T @ rows

    def components(self) -> Components:
        """Eigenvectors of the covariance, of the largest eigenvalue first, all P of them.

        Each axis points where its entries' sum is positive, so that the same patches give the same signs.
        """
        mean_P = self._sum_P / self._count
        covariance_PP = self._products_PP / self._count - torch.outer(mean_P, mean_P)
        variance_K, axes_PK = torch.linalg.eigh(covariance_PP)
        axes_KP = axes_PK.flip(1).T
        axes_KP = axes_KP * torch.where(axes_KP.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        std_K = variance_K.flip(0).clamp(min=0).sqrt()
        return Components(mean_P.float(), axes_KP.float(), std_K.float())
