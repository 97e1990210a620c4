"""Video networks grown from image networks, as LaVie grows them (arXiv 2309.15103, section 3).

Every layer of the image network is copied; the temporal layers are fresh and end in zeros. So for
one frame, and for equal frames, the fresh video network gives the image network's output.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.models.state import check_keys, read_tensors
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"
ATTENTION_BLOCK = "CrossAttnDownBlock2D"
# What the networks here take for granted of an image network, with diffusers' default for each.
TAKEN_FOR_GRANTED = {
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "center_input_sample": False,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "resnet_time_scale_shift": "default",
}


def is_temporal(key: str) -> bool:
    """Whether a key of a state dict belongs to a layer that image networks do not have."""
    return "_temp" in key or key.startswith("temporal")


def grow_base(image_network: Path, config: UNetConfig | None = None) -> UNet:
    """The base network, grown from Stable Diffusion 1.4.

    Args:
        image_network: The diffusers folder of the image UNet (config.json and safetensors), or its
            safetensors file alone.
        config: The network to build; by default the base network at the size that config.json
            gives, or at LaVie's where there is only a file.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: The image network's keys or settings do not fit; the message names them.
    """
    return _grow(image_network, config, UNetConfig.base())


def grow_super_resolution(image_network: Path, config: UNetConfig | None = None) -> UNet:
    """The super-resolution network, grown from the x4 upscaler; only temporal layers learn.

    Arguments and errors are those of `grow_base`.
    """
    net = _grow(image_network, config, UNetConfig.super_resolution())
    train_temporal_layers_only(net)
    return net


def grow_interpolation(base: UNet) -> UNet:
    """The interpolation network, grown from a base network.

    Every layer that both have is copied, temporal attention included. The first convolution sees
    four more channels, the key frames' latents, through zeros. Rotary angles and bias have no place
    in the interpolation network and stay behind.
    """
    interpolation = UNetConfig.interpolation()
    config = replace(
        base.config,
        in_channels=2 * base.config.in_channels,
        frame_attention=interpolation.frame_attention,
        temporal_positions=interpolation.temporal_positions,
        temporal_order=interpolation.temporal_order,
    )
    net = UNet(config)
    old = base.state_dict()
    state = {key: old[key] for key in net.state_dict()}
    state["conv_in.weight"] = _widened(old["conv_in.weight"], config.in_channels)
    net.load_state_dict(state, strict=True)
    return net


def widen_input(net: UNet, more: int) -> UNet:
    """The same network with more input channels behind its own, which it does not heed yet.

    Long video by continuation adds five: a mask and the latents of the given frame (SEINE).
    """
    config = replace(net.config, in_channels=net.config.in_channels + more)
    wide = UNet(config)
    state = dict(net.state_dict())
    state["conv_in.weight"] = _widened(state["conv_in.weight"], config.in_channels)
    wide.load_state_dict(state, strict=True)
    return wide


def train_temporal_layers_only(net: UNet) -> None:
    """Freeze every parameter that came from the image network."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(is_temporal(name))


def config_of_image_network(values: dict[str, Any], stage: UNetConfig) -> UNetConfig:
    """A stage's configuration at the size of an image network.

    Args:
        values: Content of a diffusers UNet's config.json.
        stage: The stage, whose temporal settings are kept.

    Raises:
        ValueError: The image network has a setting that these networks do not.
    """
    for name, expected in TAKEN_FOR_GRANTED.items():
        if values.get(name, expected) != expected:
            raise ValueError(f"{name} of the image network must be {expected}, got {values[name]}")
    widths = tuple(values["block_out_channels"])
    blocks = tuple(values["down_block_types"])
    cross_only = values.get("only_cross_attention", False)
    heads = values.get("num_attention_heads") or values.get("attention_head_dim", 8)
    return replace(
        stage,
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        block_out_channels=widths,
        layers_per_block=values["layers_per_block"],
        cross_attention_dim=values["cross_attention_dim"],
        num_attention_heads=heads if isinstance(heads, int) else tuple(heads),
        norm_num_groups=values.get("norm_num_groups", 32),
        norm_eps=values.get("norm_eps", 1e-5),
        attention_levels=tuple(name == ATTENTION_BLOCK for name in blocks),
        only_cross_attention=(
            (cross_only,) * len(widths) if isinstance(cross_only, bool) else tuple(cross_only)
        ),
        use_linear_projection=values.get("use_linear_projection", False),
        num_class_embeds=values.get("num_class_embeds"),
    )


def _grow(image_network: Path, config: UNetConfig | None, stage: UNetConfig) -> UNet:
    weights = image_network / WEIGHTS if image_network.is_dir() else image_network
    settings = weights.with_name("config.json")
    if config is None:
        config = stage
        if settings.is_file():
            config = config_of_image_network(json.loads(settings.read_text("utf-8")), stage)
    image = read_tensors(weights)
    net = UNet(config)
    state = net.state_dict()
    shared = {key: value for key, value in state.items() if not is_temporal(key)}
    check_keys(shared, image, f"the image network of {weights}")
    net.load_state_dict(state | image, strict=True)
    return net


def _widened(weight: Tensor, in_channels: int) -> Tensor:
    wide = torch.zeros(weight.shape[0], in_channels, *weight.shape[2:], dtype=weight.dtype)
    wide[:, : weight.shape[1]] = weight
    return wide
