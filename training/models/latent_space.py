"""What a network must know of the autoencoder whose latents it lives on, without loading it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.models.schedule import Objective, Stage

RELEASED_DOWNSAMPLING = {"base": 8, "interpolation": 8, "super_resolution": 4}
"""Pixels per latent of the autoencoder that each stage's released network knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSpace:
    """Shape and scale of latents."""

    channels: int
    """C, numbers a latent."""
    downsampling: int
    """Pixels per latent along height and width."""
    scale: float
    """Factor between the autoencoder's latents and those of the network."""

    @classmethod
    def released(cls, stage: Stage) -> LatentSpace:
        """Stable Diffusion 1.4's for base and interpolation, the x4 upscaler's for super-resolution."""
        scale = Objective.of(stage).latent_scale
        return cls(channels=4, downsampling=RELEASED_DOWNSAMPLING[stage], scale=scale)

    @classmethod
    def of_config(cls, config: Any) -> LatentSpace:
        """From an autoencoder's config.json, diffusers' AutoencoderKL's or ours.

        Raises:
            ValueError: It is the configuration of something else.
        """
        try:
            if "patch_px" in config:
                downsampling = int(config["patch_px"])
            else:
                downsampling = int(2 ** (len(config["block_out_channels"]) - 1))
            return cls(
                channels=int(config["latent_channels"]),
                downsampling=downsampling,
                scale=float(config["scaling_factor"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"not the configuration of an autoencoder: {error} is missing"
            ) from error

    @classmethod
    def of_plan(cls, plan: Any) -> LatentSpace:
        """From plan.json of encoded latents, which holds `to_plan`."""
        return cls(
            channels=plan["latent_channels"],
            downsampling=plan["downsampling"],
            scale=plan["latent_scale"],
        )

    def to_plan(self) -> dict[str, Any]:
        """What plan.json of encoded latents says of them."""
        values = asdict(self)
        return {
            "latent_channels": values["channels"],
            "latent_scale": values["scale"],
            "downsampling": values["downsampling"],
        }

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.downsampling} px a latent, scale {self.scale:g}"


def read_latent_space(vae: Path) -> LatentSpace:
    """That of an autoencoder's folder, from its config.json alone.

    Raises:
        FileNotFoundError: There is no config.json.
        ValueError: It is that of something else.
    """
    path = vae / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no autoencoder in {vae}: config.json is missing")
    return LatentSpace.of_config(json.loads(path.read_text(encoding="utf-8")))
