"""Convolutions over frames: pseudo-3D convolution, residual block, resampling.

Shape letters: B samples, C channels, F frames, H W height and width, E width of the time embedding.
"""

from torch import Tensor, nn
from torch.nn import functional

from training.models.layout import fold_frames, unfold_frames


class FrameConv2d(nn.Conv2d):
    """A 2D convolution applied to every frame; its weight stays 4-D, so image weights fit."""

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        """``[B, C_in, F, H, W]`` to ``[B, C_out, F, H', W']``."""
        return unfold_frames(super().forward(fold_frames(x_BCFHW)), x_BCFHW.shape[0])


def temporal_conv(channels: int, kernel: int) -> nn.Conv3d:
    """Convolution over ``kernel`` neighbouring frames at each position, zeros beyond the ends."""
    return nn.Conv3d(channels, channels, (kernel, 1, 1), padding=(kernel // 2, 0, 0))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the time embedding added in between.

    The group norms see all frames: the statistics of a group run over F, H and W (the released
    networks normalise the 5-D tensor).

    Args:
        conv1: First convolution; says how many channels come in and go on.
        conv2: Second convolution.
        time_width: Width E of the time embedding, or None for a block that is not told the time.
        groups: Groups of both norms.
        eps: Epsilon of both norms.
    """

    def __init__(
        self,
        conv1: FrameConv2d | nn.Conv3d,
        conv2: FrameConv2d | nn.Conv3d,
        *,
        time_width: int | None,
        groups: int,
        eps: float,
    ) -> None:
        super().__init__()
        in_channels, out_channels = conv1.in_channels, conv1.out_channels
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = conv1
        self.time_emb_proj = None if time_width is None else nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = conv2
        self.conv_shortcut = (
            None if in_channels == out_channels else FrameConv2d(in_channels, out_channels, 1)
        )

    def forward(self, x_BCFHW: Tensor, emb_BE: Tensor | None = None) -> Tensor:
        """``[B, C_in, F, H, W]`` to ``[B, C_out, F, H, W]``."""
        h = self.conv1(functional.silu(self.norm1(x_BCFHW)))
        if self.time_emb_proj is not None and emb_BE is not None:
            emb = functional.silu(emb_BE).to(self.time_emb_proj.weight.dtype)
            h = h + self.time_emb_proj(emb)[:, :, None, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        if self.conv_shortcut is not None:
            x_BCFHW = self.conv_shortcut(x_BCFHW)
        return x_BCFHW + h


class Downsampler(nn.Module):
    """Halve height and width, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = FrameConv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        """``[B, C, F, H, W]`` to ``[B, C, F, ceil(H / 2), ceil(W / 2)]``."""
        out: Tensor = self.conv(x_BCFHW)
        return out


class Upsampler(nn.Module):
    """Grow height and width to a given size by nearest neighbour, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = FrameConv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCFHW: Tensor, size_HW: tuple[int, int]) -> Tensor:
        """``[B, C, F, H, W]`` to ``[B, C, F, *size_HW]``: the size of the next skip."""
        frames = functional.interpolate(fold_frames(x_BCFHW), size=size_HW, mode="nearest")
        out: Tensor = self.conv(unfold_frames(frames, x_BCFHW.shape[0]))
        return out
