"""The layers that see more than one frame.

Shape letters: B samples, T video frames, N tokens of a frame, C channels, h heads.
"""

from typing import NamedTuple

from torch import Tensor, nn

from training.models.attention import Attention, attend
from training.models.layout import from_time_lines, to_time_lines
from training.models.residual import FrameConv2d, ResidualBlock, temporal_conv
from training.models.rotary import RelativeBias, RotaryEmbedding

TEMPORAL_NORM_EPS = 1e-6  # of the released super-resolution network


def start_at_zero(layer: nn.Module) -> None:
    """Zero the parameters of the last layer of a residual, so that fresh it adds nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class TemporalAttention(Attention):
    """Attention of every position over its own time line.

    With positions: rotary angles on queries and keys, and a bias table per block. Without: plain
    attention, blind to the order of frames. The output projection starts at zero, so that a fresh
    video network is its image network; the release zeroes its weight only.
    """

    def __init__(self, width: int, heads: int, *, positions: bool) -> None:
        super().__init__(width, heads)
        self.time_rel_pos_bias = RelativeBias(heads) if positions else None
        self.rotary_emb = RotaryEmbedding() if positions else None
        start_at_zero(self.to_out)

    def attend_time(self, x_BTNC: Tensor) -> Tensor:
        """Attend along T, ``[B, T, N, C]`` in and out."""
        batch = x_BTNC.shape[0]
        lines = to_time_lines(x_BTNC)
        q, k, v = (self.split_heads(to(lines)) for to in (self.to_q, self.to_k, self.to_v))
        if self.rotary_emb is not None:
            tables = self.rotary_emb.tables(lines.shape[1])
            q, k = self.rotary_emb(q, tables), self.rotary_emb(k, tables)
        bias = None
        if self.time_rel_pos_bias is not None:
            bias = self.time_rel_pos_bias(lines.shape[1])
        out = self.output(attend(q, k, v, bias))
        return from_time_lines(out, batch)


class ResidualWidths(NamedTuple):
    """Sizes shared by the residual blocks of one level."""

    channels: int
    time_width: int
    norm_groups: int


class TemporalModule(nn.Module):
    """Temporal, then spatial convolution of a whole level's output (super-resolution).

    y = x + shift_conv(spatial(temporal(x, emb), emb)). ``shift_conv`` starts at zero, so a fresh
    module passes its input.
    """

    def __init__(self, widths: ResidualWidths) -> None:
        super().__init__()
        c, time_width, groups = widths
        self.resblocks_3d_t = ResidualBlock(
            temporal_conv(c, 5),
            temporal_conv(c, 3),
            time_width=time_width,
            groups=groups,
            eps=TEMPORAL_NORM_EPS,
        )
        self.resblocks_3d_s = ResidualBlock(
            FrameConv2d(c, c, 3, padding=1),
            FrameConv2d(c, c, 3, padding=1),
            time_width=time_width,
            groups=groups,
            eps=TEMPORAL_NORM_EPS,
        )
        self.shift_conv = FrameConv2d(c, c, 1)
        start_at_zero(self.shift_conv)

    def forward(self, x_BCTHW: Tensor, emb_BE: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` in and out, with the time embedding ``[B, E]``."""
        inner = self.resblocks_3d_t(x_BCTHW, emb_BE)
        shift: Tensor = self.shift_conv(self.resblocks_3d_s(inner, emb_BE))
        return x_BCTHW + shift


def temporal_residual(channels: int, norm_groups: int) -> ResidualBlock:
    """Temporal residual block in front of a transformer (super-resolution).

    Its second convolution starts at zero, so that a fresh block passes its input; the release does
    not do so.
    """
    block = ResidualBlock(
        temporal_conv(channels, 3),
        temporal_conv(channels, 3),
        time_width=None,
        groups=norm_groups,
        eps=TEMPORAL_NORM_EPS,
    )
    start_at_zero(block.conv2)
    return block
