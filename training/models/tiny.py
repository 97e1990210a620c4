"""A cascade small enough for two processor cores: real classes, seeded weights, never trained.

For tests and for trying the machinery. Videos sampled from fresh ones show noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.autoencoder import Autoencoder
from training.models.schedule import Objective, Stage
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

TEXT_WIDTH = 32
NUM_TOKENS = 77


def tiny_config(stage: Stage) -> UNetConfig:
    """LaVie's architecture of a stage with two levels and narrow blocks."""
    return replace(
        UNetConfig.of(stage),
        block_out_channels=(32, 64),
        num_attention_heads=(1, 2),
        attention_levels=(False, True) if stage == "super_resolution" else (True, False),
        only_cross_attention=(stage == "super_resolution", False),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,
    )


def tiny_unet(stage: Stage, *, seed: int = 0) -> UNet:
    """A fresh network of a stage; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(tiny_config(stage))


def tiny_autoencoder(stage: Stage, *, seed: int = 0) -> Autoencoder:
    """A fresh image autoencoder with the stage's downsampling (8, or 4) and latent scale."""
    ensure_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = 3 if stage == "super_resolution" else 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae: Any = AutoencoderKL(
            block_out_channels=(8,) * levels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=Objective.of(stage).latent_scale,
        )
    return Autoencoder(vae)


def tiny_text_encoder(*, seed: int = 0) -> TextEncoder:
    """A fresh CLIP text tower, 32 wide, 77 tokens, with a real tokenizer of single bytes."""
    ensure_torchvision()
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextEncoder(CLIPTextModel(config), tokenizer)
