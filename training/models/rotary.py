"""How temporal attention knows time: rotary angles on queries and keys, and a learned bias.

Shape letters: T frames, R = 16 rotated pairs, D head width, h heads.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.unet_config import ROTARY_DIMS

ROTARY_BASE = 10_000.0  # RoFormer, arXiv 2104.09864, section 3.2.2
NUM_BUCKETS = 32  # 16 for the past and present, 16 for the future
MAX_DISTANCE = 32  # frames; farther ones share the last bucket


class RotaryEmbedding(nn.Module):
    """Rotary position embedding over frame numbers (RoFormer, arXiv 2104.09864, eq. 34).

    Rotates the pairs (2i, 2i + 1) of the first 32 dimensions by the angle ``t * freqs[i]``,
    ``freqs[i] = 10000 ** (-2i / 32)``; the other dimensions pass through. The frequencies are
    stored because the released checkpoints store them under every block, and stay fp32 when the
    network is cast: fp16 rounds them by up to 1 part in 2048, 0.02 rad at frame 60.
    """

    freqs: Tensor

    def __init__(self) -> None:
        super().__init__()
        exponent_R = torch.arange(0, ROTARY_DIMS, 2, dtype=torch.float32) / ROTARY_DIMS
        self.register_buffer("freqs", ROTARY_BASE**-exponent_R)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.freqs
        super()._apply(fn, recurse)
        if self.freqs.element_size() < before.element_size():
            self.freqs = before.to(self.freqs.device)
        return self

    def tables(self, num_frames: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every angle, fp32 ``[T, R]`` each, for queries and keys alike."""
        frames_T = torch.arange(num_frames, device=self.freqs.device, dtype=torch.float32)
        angles_TR = torch.outer(frames_T, self.freqs)
        return angles_TR.cos(), angles_TR.sin()

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Rotate queries or keys ``[..., T, D]``, D >= 32, where row t is frame t.

        Args:
            x: Queries or keys.
            tables: What `tables` says for T, where several are rotated.
        """
        cos_TR, sin_TR = self.tables(x.shape[-2]) if tables is None else tables
        head, tail = torch.split(x, [ROTARY_DIMS, x.shape[-1] - ROTARY_DIMS], dim=-1)
        even, odd = head.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = [even * cos_TR - odd * sin_TR, odd * cos_TR + even * sin_TR]
        return torch.cat([torch.stack(turned, dim=-1).flatten(-2).to(x.dtype), tail], dim=-1)


def relative_buckets(num_frames: int, device: torch.device | None = None) -> Tensor:
    """Bucket of every (query frame, key frame) pair, int64 ``[T, T]``, 0 to 31.

    T5's rule (arXiv 1910.10683, section 2.1): keys at or before the query use buckets 0-15, later
    ones 16-31; distances up to 7 have a bucket each, distances 8 to 32 share eight of them on a
    logarithmic scale, all beyond belong to the last.
    """
    frames_T = torch.arange(num_frames, device=device)
    offset_TT = frames_T[:, None] - frames_T[None, :]
    distance_TT = offset_TT.abs()
    half, exact = NUM_BUCKETS // 2, NUM_BUCKETS // 4
    octave_TT = torch.log(distance_TT.clamp(min=exact) / exact) / math.log(MAX_DISTANCE / exact)
    # Distance 16 lies exactly on a boundary; the nudge keeps every device's logarithm on its side.
    far_TT = exact + ((half - exact) * octave_TT + 1e-4).floor().long()
    bucket_TT = torch.where(distance_TT < exact, distance_TT, far_TT.clamp(max=half - 1))
    return torch.where(offset_TT < 0, bucket_TT + half, bucket_TT)


class RelativeBias(nn.Module):
    """Learned bias of each head for the signed distance between two frames, one table a block."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(NUM_BUCKETS, heads)

    def forward(self, num_frames: int) -> Tensor:
        """Bias ``[heads, T, T]`` indexed head, query, key; added to the scores without scaling.

        Contiguous: every fused attention kernel of CUDA refuses a bias whose keys are not beside
        each other, and torch would fall back to the plain one without a word.
        """
        table = self.relative_attention_bias.weight
        bias_TTh = functional.embedding(relative_buckets(num_frames, table.device), table)
        return bias_TTh.permute(2, 0, 1).contiguous()
