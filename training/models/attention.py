"""Attention and feed-forward layers, as Stable Diffusion has them, over tokens.

Shape letters: B rows of the batch, N query tokens, S key tokens, C channels, D text width,
h heads, d head width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.layout import FrameLayout, by_frame, by_sample, merge_heads, split_heads

MAX_ATTENTION_ROWS = 65_535
"""Rows of one fused attention call: CUDA's limit on the second and third axis of a grid. The
super-resolution network's temporal attention has one row per pixel and passes it at 320x512."""


def attend(
    q_BhNd: Tensor, k_BhSd: Tensor, v_BhSd: Tensor, bias_hNS: Tensor | None = None
) -> Tensor:
    """Softmax(q k^T / sqrt(d) + bias) v with fp32 softmax statistics, ``[B, h, N, d]``.

    Args:
        q_BhNd: Queries.
        k_BhSd: Keys.
        v_BhSd: Values.
        bias_hNS: Added to the scores of every row, or None.
    """
    mask = None if bias_hNS is None else bias_hNS.to(q_BhNd.dtype).unsqueeze(0)
    if q_BhNd.shape[0] <= MAX_ATTENTION_ROWS:
        return functional.scaled_dot_product_attention(q_BhNd, k_BhSd, v_BhSd, attn_mask=mask)
    rows = zip(*(torch.split(x, MAX_ATTENTION_ROWS) for x in (q_BhNd, k_BhSd, v_BhSd)), strict=True)
    return torch.cat(
        [functional.scaled_dot_product_attention(q, k, v, attn_mask=mask) for q, k, v in rows]
    )


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a context.

    Args:
        width: Channels C of the tokens; each head has C / heads of them.
        heads: Number of heads h.
        context_width: Channels of the context, or None when the tokens attend to themselves.
    """

    def __init__(self, width: int, heads: int, *, context_width: int | None = None) -> None:
        super().__init__()
        context_width = width if context_width is None else context_width
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def split_heads(self, x_BNC: Tensor) -> Tensor:
        """``[B, N, C]`` to ``[B, h, N, d]``."""
        return split_heads(x_BNC, self.heads)

    def output(self, out_BhNd: Tensor) -> Tensor:
        """Merge the heads and project, ``[B, N, C]``."""
        merged: Tensor = self.to_out[0](merge_heads(out_BhNd))
        return merged

    def forward(self, x_BNC: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        """Attend to ``context_BSD`` or, without one, to the tokens themselves; ``[B, N, C]``."""
        context_BSD = x_BNC if context_BSD is None else context_BSD
        q, k, v = self.to_q(x_BNC), self.to_k(context_BSD), self.to_v(context_BSD)
        return self.output(attend(*map(self.split_heads, (q, k, v))))


class SparseCausalAttention(Attention):
    """Self-attention of a frame that reads the first and the previous frame in place of its own.

    Frame t queries the tokens of frame 0 and of frame max(t - 1, 0), in this order. An image is a
    film of one frame: it reads itself. Keys and values are projected once a frame and then
    gathered.
    """

    def attend_frames(self, x_BNC: Tensor, layout: FrameLayout) -> Tensor:
        """Attend over frames folded into the batch, ``[B * F, N, C]`` in and out."""
        q = self.split_heads(self.to_q(x_BNC))
        k, v = (
            self.split_heads(self._gather(project(x_BNC), layout))
            for project in (self.to_k, self.to_v)
        )
        return self.output(attend(q, k, v))

    @staticmethod
    def _gather(x_BNC: Tensor, layout: FrameLayout) -> Tensor:
        x_BFNC = by_sample(x_BNC, layout.batch)
        own_F = torch.arange(layout.frames, device=x_BNC.device)
        is_image_F = own_F >= layout.video_frames
        first_F = torch.where(is_image_F, own_F, 0)
        previous_F = torch.where(is_image_F, own_F, (own_F - 1).clamp(min=0))
        pair = [x_BFNC.index_select(1, first_F), x_BFNC.index_select(1, previous_F)]
        return by_frame(torch.cat(pair, dim=2))


class GEGLU(nn.Module):
    """Gated linear unit with exact GELU (arXiv 2002.05202, section 2): value * GELU(gate)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., inner]``."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Width to four times the width, GEGLU, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Entry 1 is the dropout of the image network, always 0; the released names count it.
        self.net = nn.Sequential(
            GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` in and out."""
        out: Tensor = self.net(x)
        return out
