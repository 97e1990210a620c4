"""What the frozen models of a run are like, told from their configurations before any is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from training.models.exported import read_objective
from training.models.latent_space import LatentSpace, read_latent_space
from training.models.text_encoder import read_text_width
from training.run_config import FRESH, TrainConfig


def latent_space_of(config: TrainConfig) -> LatentSpace:
    """The latents that a run's network lives on.

    A fresh network takes those of the companions that are named, and of the released ones where none
    are; one that was trained before has its own.

    Raises:
        FileNotFoundError: The companions have no autoencoder.
        ValueError: A configuration is that of something else.
    """
    model = config.model
    if model.initial_weights in FRESH:
        if model.companions is None:
            return LatentSpace.released(config.stage)
        return read_latent_space(Path(model.companions) / "vae")
    folder = Path(model.initial_weights)
    if not (folder / "unet" / "config.json").is_file() or not (folder / "config.json").is_file():
        return LatentSpace.released(config.stage)  # a released checkpoint, or an image model
    net = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    return LatentSpace(
        channels=int(net["out_channels"]),
        downsampling=_downsampling(config, folder),
        scale=read_objective(folder).latent_scale,
    )


def _downsampling(config: TrainConfig, folder: Path) -> int:
    """Of an exported model's autoencoder, or of the one that is named where it was exported without."""
    named = config.model.companions
    for vae in (folder / "vae", *([Path(named) / "vae"] if named else [])):
        if (vae / "config.json").is_file():
            return read_latent_space(vae).downsampling
    return LatentSpace.released(config.stage).downsampling


def text_width_of(config: TrainConfig, otherwise: int) -> int:
    """Width of the text states of the companions that are named, or what stands for it."""
    if config.model.companions is None:
        return otherwise
    return read_text_width(Path(config.model.companions))
