"""The levels of the network: down, middle, up.

Shape letters: B samples, C channels, F frames, H W height and width, E width of the time embedding,
K texts a sample, L text tokens, D text width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.models.layout import FrameLayout
from training.models.residual import Downsampler, FrameConv2d, ResidualBlock, Upsampler
from training.models.transformer import Transformer
from training.models.unet_config import UNetConfig


class Conditions(NamedTuple):
    """What every layer is told beside the running tensor."""

    emb: Tensor
    """``[B, E]`` fp32: embedding of the diffusion time, and of the noise level if there is one."""
    text: Tensor
    """``[B, K, L, D]``: text states, row 0 for the video, one more for each image."""
    layout: FrameLayout
    """How many video frames and images there are."""


def spatial_residual(config: UNetConfig, in_channels: int, out_channels: int) -> ResidualBlock:
    """Stable Diffusion's residual block, applied to every frame."""
    return ResidualBlock(
        FrameConv2d(in_channels, out_channels, 3, padding=1),
        FrameConv2d(out_channels, out_channels, 3, padding=1),
        time_width=config.time_embedding_dim,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
    )


def run_layer(layer: nn.Module, *args: object, recompute: bool) -> Tensor:
    """Call a layer, keeping its activations for the backward pass or computing them again there."""
    if recompute and torch.is_grad_enabled():
        recomputed: Tensor = checkpoint(layer, *args, use_reentrant=False)
        return recomputed
    out: Tensor = layer(*args)
    return out


class Level(nn.Module):
    """Residual blocks and transformers that share one resolution.

    ``recompute`` trades time for memory: the activations inside each residual block and each
    transformer are dropped and computed again in the backward pass.
    """

    resnets: nn.ModuleList
    attentions: nn.ModuleList | None

    def __init__(self) -> None:
        super().__init__()
        self.recompute = False

    def _layer(self, index: int, x_BCFHW: Tensor, conditions: Conditions) -> Tensor:
        emb, text, layout = conditions
        x_BCFHW = run_layer(self.resnets[index], x_BCFHW, emb, recompute=self.recompute)
        if self.attentions is not None:
            attention = self.attentions[index]
            x_BCFHW = run_layer(attention, x_BCFHW, text, layout, recompute=self.recompute)
        return x_BCFHW


class DownLevel(Level):
    """Residual blocks, each with a transformer where the level has them, then a downsampler."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        widths = config.block_out_channels
        channels, layers = widths[level], config.layers_per_block
        ins = [widths[max(level - 1, 0)]] + [channels] * (layers - 1)
        self.resnets = nn.ModuleList([spatial_residual(config, c, channels) for c in ins])
        self.attentions = None
        if config.attention_levels[level]:
            self.attentions = nn.ModuleList([Transformer(config, level) for _ in range(layers)])
        self.downsamplers = None
        if level < len(widths) - 1:
            self.downsamplers = nn.ModuleList([Downsampler(channels)])

    def forward(self, x_BCFHW: Tensor, conditions: Conditions) -> tuple[Tensor, list[Tensor]]:
        """The running tensor after the level, and the skips it leaves for the way up."""
        skips = []
        for index in range(len(self.resnets)):
            x_BCFHW = self._layer(index, x_BCFHW, conditions)
            skips.append(x_BCFHW)
        if self.downsamplers is not None:
            x_BCFHW = self.downsamplers[0](x_BCFHW)
            skips.append(x_BCFHW)
        return x_BCFHW, skips


class MiddleLevel(Level):
    """Residual block, transformer, residual block, at the coarsest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        last = len(config.block_out_channels) - 1
        channels = config.block_out_channels[last]
        self.resnets = nn.ModuleList(
            [spatial_residual(config, channels, channels) for _ in range(2)]
        )
        self.attentions = nn.ModuleList([Transformer(config, last)])

    def forward(self, x_BCFHW: Tensor, conditions: Conditions) -> Tensor:
        """``[B, C, F, H, W]`` in and out."""
        x_BCFHW = self._layer(0, x_BCFHW, conditions)
        return run_layer(self.resnets[1], x_BCFHW, conditions.emb, recompute=self.recompute)


class UpLevel(Level):
    """Residual blocks that each take a skip from the way down, then an upsampler.

    Args:
        config: The whole network.
        level: Level of the way down that this one mirrors.
    """

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        widths, layers = config.block_out_channels, config.layers_per_block + 1
        channels = widths[level]
        running = [widths[min(level + 1, len(widths) - 1)]] + [channels] * (layers - 1)
        skips = [channels] * (layers - 1) + [widths[max(level - 1, 0)]]
        self.resnets = nn.ModuleList(
            [
                spatial_residual(config, c + skip, channels)
                for c, skip in zip(running, skips, strict=True)
            ]
        )
        self.attentions = None
        if config.attention_levels[level]:
            self.attentions = nn.ModuleList([Transformer(config, level) for _ in range(layers)])
        self.upsamplers = nn.ModuleList([Upsampler(channels)]) if level > 0 else None

    def forward(self, x_BCFHW: Tensor, skips: list[Tensor], conditions: Conditions) -> Tensor:
        """Read this level's skips from the end of ``skips`` and grow to the size of the next one.

        The list stays as it is: hooks, such as those of FSDP, may hand over a copy of it.
        """
        x_BCFHW = self.run_layers(range(len(self.resnets)), x_BCFHW, skips, conditions)
        if self.upsamplers is not None:
            height, width = skips[-1 - len(self.resnets)].shape[-2:]
            x_BCFHW = self.upsamplers[0](x_BCFHW, (height, width))
        return x_BCFHW

    def run_layers(
        self, layers: range, x_BCFHW: Tensor, skips: list[Tensor], conditions: Conditions
    ) -> Tensor:
        """Some of this level's layers, each with a skip, from the end of ``skips`` on."""
        for taken, index in enumerate(layers, start=1):
            x_BCFHW = torch.cat([x_BCFHW, skips[-taken]], dim=1)
            x_BCFHW = self._layer(index, x_BCFHW, conditions)
        return x_BCFHW
