"""Which stage a run trains."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from training.data.batch import Batch, Sample
from training.losses import objective_of
from training.models.schedule import Objective
from training.run_config import TrainConfig
from training.stages.base import Base
from training.stages.feed import Companions, Feed
from training.stages.interpolation import Interpolation, num_keys
from training.stages.super_resolution import SuperResolution

__all__ = ["Companions", "Feed", "Stage", "stage_of"]

DOWNSAMPLING = {"base": 8, "interpolation": 8, "super_resolution": 4}
"""Pixels per latent of the autoencoder that each stage's released network knows."""


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
        ValueError: The samples do not fit the stage.
    """
    objective = objective_of(config)
    downsampling = DOWNSAMPLING[config.stage]
    if config.stage == "base":
        return Base(config, objective, downsampling)
    if config.stage == "interpolation":
        num_keys(config.sample.num_frames)
        return Interpolation(config, objective, downsampling)
    if any(source.encoded for source in config.data.sources):
        raise ValueError(
            "super_resolution trains from pixels: its low-resolution frames are made of them; "
            "leave `encoded` out of the sources"
        )
    return SuperResolution(config, objective, downsampling)
