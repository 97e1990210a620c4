"""Overlapping tiles of a video: predicted one by one, blended into one prediction.

At every step of sampling the network predicts each tile of the noisy latents, the predictions are
averaged where tiles overlap, and one step is taken on the whole (MultiDiffusion, arXiv 2302.08113).
All tiles see the same noise, so they grow into one video; memory depends on the tile alone.

Shape letters: B samples, C channels, T frames, H W of the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a video is cut into tiles; lengths in frames and in latents."""

    frames: int = 8
    """Frames of a tile, at least 1; the released super-resolution network learned on 8."""
    frame_overlap: int = 2
    """Frames that neighbouring tiles share; 0 cuts independent pieces, as the release does."""
    height: int | None = None
    """Height of a tile in latents (low-resolution pixels); None for the whole frame."""
    width: int | None = None
    """Width of a tile in latents (low-resolution pixels); None for the whole frame."""
    overlap: int = 32
    """Latents that neighbouring tiles share along height and width, less than either."""

    def __post_init__(self) -> None:
        """Raise ValueError for tiles that cover nothing or overlap wholly."""
        _check_length("frames", self.frames, self.frame_overlap)
        if self.overlap < 0:
            raise ValueError(f"overlap must be at least 0, got {self.overlap}")
        for name in ("height", "width"):
            length = getattr(self, name)
            if length is not None:
                _check_length(name, length, self.overlap)

    def blends(self, num_frames: int, height: int, width: int) -> bool:
        """Whether a video of this size is cut into tiles that are sampled together and blended."""
        in_space = self.height is not None or self.width is not None
        return (
            bool(self.frame_overlap or in_space) and len(self.tiles(num_frames, height, width)) > 1
        )

    def tiles(self, num_frames: int, height: int, width: int) -> list[Tile]:
        """All tiles of a video, the first in time first, then row by row."""
        spans = (
            spans_of(num_frames, self.frames, self.frame_overlap),
            spans_of(height, height if self.height is None else self.height, self.overlap),
            spans_of(width, width if self.width is None else self.width, self.overlap),
        )
        overlaps = (self.frame_overlap, self.overlap, self.overlap)
        return [Tile(spans=each, overlaps=overlaps) for each in product(*spans)]


def _check_length(name: str, length: int, overlap: int) -> None:
    if length < 1:
        raise ValueError(f"{name} of a tile must be at least 1, got {length}")
    if not 0 <= overlap < length:
        raise ValueError(f"overlap must be 0 to {name} - 1 ({length - 1}), got {overlap}")


Span = tuple[int, int]
"""First index, and one past the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A box of a video's latents."""

    spans: tuple[Span, Span, Span]
    """Along frames, height and width."""
    overlaps: tuple[int, int, int]
    """Over how many frames and latents its weight fades towards its edges."""

    def of(self, x_BCTHW: Tensor) -> Tensor:
        """This box of a tensor, as a view."""
        (t0, t1), (h0, h1), (w0, w1) = self.spans
        return x_BCTHW[:, :, t0:t1, h0:h1, w0:w1]

    def weight(self) -> Tensor:
        """Share of this tile where others overlap it, ``[t, h, w]``: rises from each edge."""
        t, h, w = (
            fade(stop - start, overlap)
            for (start, stop), overlap in zip(self.spans, self.overlaps, strict=True)
        )
        return t[:, None, None] * h[None, :, None] * w[None, None, :]


def spans_of(length: int, size: int, overlap: int) -> list[Span]:
    """Spans of ``size`` that cover ``length`` and share at least ``overlap`` with their neighbours.

    The last one is shifted back so that it is whole; with an overlap of 0 it is cut short instead,
    and the spans share nothing.

    >>> spans_of(20, 8, 2)
    [(0, 8), (6, 14), (12, 20)]
    >>> spans_of(20, 8, 0)
    [(0, 8), (8, 16), (16, 20)]
    """
    if length <= size:
        return [(0, length)]
    if overlap == 0:
        return [(start, min(start + size, length)) for start in range(0, length, size)]
    starts = [*range(0, length - size, size - overlap), length - size]
    return [(start, start + size) for start in starts]


def fade(length: int, overlap: int) -> Tensor:
    """Weights of one axis: 1 inside, falling linearly to 1 / (overlap + 1) at both ends, fp32."""
    import torch

    index = torch.arange(1, length + 1, dtype=torch.float32)
    edge = torch.minimum(index, length + 1 - index)
    return (edge / (overlap + 1)).clamp(max=1)


def blend(
    predict: Callable[[Tile], Tensor], tiles: Sequence[Tile], shape: torch.Size, like: Tensor
) -> Tensor:
    """Weighted mean of the predictions of all tiles.

    Args:
        predict: The prediction for one tile, of the tile's own size.
        tiles: Boxes that together cover everything.
        shape: Of the whole, ``[B, C, T, H, W]``.
        like: Says where the sum is kept, and the dtype of the result.

    Returns:
        ``shape``, summed in fp32.
    """
    import torch

    if len(tiles) == 1:
        return predict(tiles[0]).to(like)
    total = torch.zeros(shape, device=like.device, dtype=torch.float32)
    weights = torch.zeros((1, 1, *shape[2:]), device=like.device, dtype=torch.float32)
    for tile in tiles:
        weight = tile.weight().to(like.device)[None, None]
        tile.of(total).add_(predict(tile).to(total) * weight)
        tile.of(weights).add_(weight)
    return (total / weights).to(like.dtype)
