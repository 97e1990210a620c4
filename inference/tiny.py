"""Tiny untrained networks, to try the machinery: their videos are coloured noise.

The architecture is that of the real stages, with widths and layers cut; weights are drawn from a
seed. A real text tower and a real tokenizer (single bytes) are among them, so prompts and seeds
change the result as they should.
"""

from dataclasses import replace

import torch

from training.models.exported import ExportedModel
from training.models.schedule import Objective, Stage
from training.models.tiny import tiny_autoencoder, tiny_config, tiny_text_encoder
from training.models.unet import UNet

ORIGIN = "tiny untrained networks, for trying the machinery"


def tiny_model(stage: Stage, *, seed: int = 0, given_frames: bool = False) -> ExportedModel:
    """A model of one stage with random weights: 0.8 to 1.7 M parameters, seconds a video on a CPU.

    Args:
        stage: Which network of the cascade.
        seed: Of the weights.
        given_frames: Whether the base network takes given frames as conditioning channels, as
            recursive long video needs (see `inference.long_video`).
    """
    objective = Objective.of(stage)
    config = tiny_config(stage)
    if given_frames:
        config = replace(config, in_channels=9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(config).eval()
        _wake_temporal_layers(net)
    return ExportedModel(
        net=net,
        objective=objective,
        autoencoder=tiny_autoencoder(stage, seed=seed),
        text_encoder=tiny_text_encoder(seed=seed),
        origin=f"{ORIGIN}, seed {seed}",
    )


def _wake_temporal_layers(net: UNet) -> None:
    """Fill what starts at zero, so that every frame depends on its neighbours."""
    for parameter in net.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.xavier_uniform_(parameter, gain=0.5)
