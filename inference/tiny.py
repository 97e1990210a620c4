"""Tiny untrained networks, to try the machinery: their videos are coloured noise.

The architecture is that of the real stages, with widths and layers cut; weights are drawn from a
seed. A real text tower and a real tokenizer (single bytes) are among them, so prompts and seeds
change the result as they should.
"""

from dataclasses import replace
from typing import Any

import torch

from curation.torchvision_shim import ensure_torchvision
from training.models.autoencoder import Autoencoder
from training.models.config import UNetConfig
from training.models.exported import ExportedModel
from training.models.schedule import Objective, Stage
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet

ORIGIN = "tiny untrained networks, for trying the machinery"
TEXT_WIDTH = 24


def tiny_model(stage: Stage, *, seed: int = 0, given_frames: bool = False) -> ExportedModel:
    """A model of one stage with random weights: 0.5 M parameters, seconds a video on a CPU.

    Args:
        stage: Which network of the cascade.
        seed: Of the weights.
        given_frames: Whether the base network takes given frames as conditioning channels, as
            recursive long video needs (see `inference.long_video`).
    """
    objective = Objective.of(stage)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(_config(stage, given_frames)).eval()
        _wake_temporal_layers(net)
        autoencoder = Autoencoder(_vae(objective))
        text_encoder = TextEncoder(*_text())
    return ExportedModel(
        net=net,
        objective=objective,
        autoencoder=autoencoder,
        text_encoder=text_encoder,
        origin=f"{ORIGIN}, seed {seed}",
    )


def _config(stage: Stage, given_frames: bool) -> UNetConfig:
    if stage == "super_resolution":
        return replace(
            UNetConfig.super_resolution(),
            block_out_channels=(32, 64, 64, 128),
            num_attention_heads=(1, 1, 1, 2),
            layers_per_block=1,
            cross_attention_dim=TEXT_WIDTH,
        )
    full = UNetConfig.base() if stage == "base" else UNetConfig.interpolation()
    return replace(
        full,
        in_channels=9 if given_frames else full.in_channels,
        block_out_channels=(40, 80, 80, 80),
        num_attention_heads=(1, 2, 2, 2),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,
    )


def _wake_temporal_layers(net: UNet) -> None:
    """Fill what starts at zero, so that every frame depends on its neighbours."""
    for parameter in net.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.xavier_uniform_(parameter, gain=0.5)


def _vae(objective: Objective) -> Any:
    ensure_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = 3 if objective.stage == "super_resolution" else 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * (levels - 1) + (16,),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=objective.latent_scale,
    )


def _text() -> tuple[Any, Any]:
    ensure_torchvision()
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return CLIPTextModel(config), tokenizer
