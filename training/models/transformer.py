"""The transformer after a residual block: frame attention, text attention, temporal attention.

Shape letters: B samples, T video frames, M images, F = T + M, N = H * W tokens of a frame,
C channels, L text tokens, D text width.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.attention import Attention, FeedForward, SparseCausalAttention
from training.models.layout import (
    FrameLayout,
    by_frame,
    by_sample,
    fold_frames,
    from_tokens,
    on_video_frames,
    to_tokens,
    unfold_frames,
)
from training.models.temporal import TemporalAttention, temporal_residual
from training.models.unet_config import UNetConfig

TRANSFORMER_NORM_EPS = 1e-6  # Stable Diffusion's, whatever norm_eps the residual blocks have


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, weight (c, c, 1, 1), applied to tokens: a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 1)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """``[B, N, C]`` in and out."""
        return functional.linear(x_BNC, self.weight.flatten(1), self.bias)


def attend_text(
    attention: Attention, x_BNC: Tensor, text_BKLD: Tensor, layout: FrameLayout
) -> Tensor:
    """Let every frame read its text; keys and values are projected once a text, not once a frame.

    Args:
        attention: Attention from C to D.
        x_BNC: Tokens with frames folded into the batch, ``[B * F, N, C]``.
        text_BKLD: Text states, K = 1 + M: row 0 for the video, one more for each image; without a
            video, K = M.
        layout: How many video frames and images there are.
    """
    if layout.video_frames == 0:
        return attention(x_BNC, by_frame(text_BKLD))
    x_BFNC = by_sample(x_BNC, layout.batch)
    video, images = torch.split(x_BFNC, [layout.video_frames, layout.images], dim=1)
    # All frames of a video share its text, so their tokens are one long list of queries.
    video_out = attention(video.flatten(1, 2), text_BKLD[:, 0]).view_as(video)
    if layout.images == 0:
        return by_frame(video_out)
    image_out = attention(by_frame(images), by_frame(text_BKLD[:, 1:])).view_as(images)
    return by_frame(torch.cat([video_out, image_out], dim=1))


class TransformerBlock(nn.Module):
    """Attention over the frame, over the text and over time, and a feed-forward layer.

    Args:
        config: Says which attention a frame has, what time is to temporal attention and where it
            stands.
        level: Level of the network whose width, heads and kind of first attention to take.
    """

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        width, heads = config.block_out_channels[level], config.heads(level)
        text_width = config.cross_attention_dim
        self.reads_text_first = config.only_cross_attention[level]
        self.temporal_name = config.temporal_name
        self.temporal_last = config.temporal_order == "last"
        self.norm1 = nn.LayerNorm(width)
        self.attn1: Attention
        if self.reads_text_first:
            self.attn1 = Attention(width, heads, context_width=text_width)
        elif config.frame_attention == "sparse_causal":
            self.attn1 = SparseCausalAttention(width, heads)
        else:
            self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context_width=text_width)
        self.add_module(f"norm_{config.temporal_name}", nn.LayerNorm(width))
        self.add_module(
            f"attn_{config.temporal_name}",
            TemporalAttention(width, heads, positions=config.temporal_positions),
        )
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def _attend_first(self, x_BNC: Tensor, text_BKLD: Tensor, layout: FrameLayout) -> Tensor:
        if self.reads_text_first:
            return attend_text(self.attn1, x_BNC, text_BKLD, layout)
        if isinstance(self.attn1, SparseCausalAttention):
            return self.attn1.attend_frames(x_BNC, layout)
        out: Tensor = self.attn1(x_BNC)
        return out

    def _add_time(self, x_BNC: Tensor, layout: FrameLayout) -> Tensor:
        if layout.video_frames == 0:
            return x_BNC
        norm: nn.LayerNorm = getattr(self, f"norm_{self.temporal_name}")
        attention: TemporalAttention = getattr(self, f"attn_{self.temporal_name}")
        x_BFNC = by_sample(x_BNC, layout.batch)
        video, images = torch.split(x_BFNC, [layout.video_frames, layout.images], dim=1)
        video = video + attention.attend_time(norm(video))
        return by_frame(torch.cat([video, images], dim=1) if layout.images else video)

    def forward(self, x_BNC: Tensor, text_BKLD: Tensor, layout: FrameLayout) -> Tensor:
        """Tokens ``[B * F, N, C]`` in and out."""
        x_BNC = x_BNC + self._attend_first(self.norm1(x_BNC), text_BKLD, layout)
        x_BNC = x_BNC + attend_text(self.attn2, self.norm2(x_BNC), text_BKLD, layout)
        if not self.temporal_last:
            x_BNC = self._add_time(x_BNC, layout)
        x_BNC = x_BNC + self.ff(self.norm3(x_BNC))
        if self.temporal_last:
            x_BNC = self._add_time(x_BNC, layout)
        return x_BNC


class Transformer(nn.Module):
    """One transformer block around which frames become tokens, with a residual.

    The group norm is per frame, unlike those of the residual blocks. With temporal convolutions,
    one stands in front, before the residual is taken.
    """

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        width, groups = config.block_out_channels[level], config.norm_num_groups
        projection = partial(nn.Linear, width) if config.use_linear_projection else PointwiseConv
        self.resblock_temporal = (
            temporal_residual(width, groups) if config.temporal_convolutions else None
        )
        self.norm = nn.GroupNorm(groups, width, eps=TRANSFORMER_NORM_EPS)
        self.proj_in = projection(width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(config, level)])
        self.proj_out = projection(width)

    def forward(self, x_BCFHW: Tensor, text_BKLD: Tensor, layout: FrameLayout) -> Tensor:
        """``[B, C, F, H, W]`` in and out."""
        if self.resblock_temporal is not None:
            x_BCFHW = on_video_frames(self.resblock_temporal, x_BCFHW, layout)
        height = x_BCFHW.shape[-2]
        frames = self.norm(fold_frames(x_BCFHW))
        tokens = self.proj_in(to_tokens(frames))
        for block in self.transformer_blocks:
            tokens = block(tokens, text_BKLD, layout)
        frames = from_tokens(self.proj_out(tokens), height)
        return x_BCFHW + unfold_frames(frames, layout.batch)
