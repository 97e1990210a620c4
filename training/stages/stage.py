"""Which stage a run trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from training.data.batch import Batch, Sample
from training.data.companions import latent_space_of
from training.losses import objective_of
from training.models.schedule import Objective
from training.run_config import TrainConfig
from training.stages.base import Base
from training.stages.feed import Companions, Feed
from training.stages.interpolation import Interpolation, num_keys
from training.stages.super_resolution import SCALE, SuperResolution

__all__ = ["Companions", "Feed", "Stage", "check_stage", "stage_of"]


class Stage(Protocol):
    """What the trainer asks of a stage."""

    @property
    def objective(self) -> Objective:
        """Schedule and prediction."""

    def draw(self, step: int, sample: Sample) -> dict[str, Tensor]:
        """Random tensors of one sample, each a function of seed, step and position."""

    def feed(self, batch: Batch, companions: Companions) -> Feed:
        """Arguments of the network, and what its answer is compared with."""


def stage_of(config: TrainConfig) -> Stage:
    """The stage of a run.

    Raises:
        FileNotFoundError: The companions that are named have no autoencoder.
        ValueError: The samples or the latents do not fit the stage.
    """
    check_stage(config)
    latents = latent_space_of(config)
    objective = replace(objective_of(config), latent_scale=latents.scale)
    if config.stage == "base":
        return Base(config, objective, latents)
    if config.stage == "interpolation":
        return Interpolation(config, objective, latents)
    if latents.downsampling != SCALE:
        raise ValueError(
            f"super_resolution needs latents of the low resolution's size, {SCALE} px a latent; those of "
            f"the companions have {latents}"
        )
    return SuperResolution(config, objective, latents)


def check_stage(config: TrainConfig) -> None:
    """Raise ValueError where the samples do not fit the stage; no file is read."""
    objective_of(config)
    if config.stage == "interpolation":
        num_keys(config.sample.num_frames)
    if config.stage == "super_resolution" and any(s.encoded for s in config.data.sources):
        raise ValueError(
            "super_resolution trains from pixels: its low-resolution frames are made of them; "
            "leave `encoded` out of the sources"
        )
