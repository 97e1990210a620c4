"""How a batch's frames lie in its tensors: T video frames, then M single images.

Shape letters: B samples, T video frames, M images, F = T + M frames, H W height and width,
C channels, N = H * W tokens of a frame, L text tokens, D text width.

LaVie trains on videos and images at once (arXiv 2309.15103, section 3.2): the images are
concatenated to the video along time, and every temporal layer passes them by.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor


class FrameLayout(NamedTuple):
    """Sizes that a folded tensor has lost: how many samples, video frames and images it holds."""

    batch: int
    video_frames: int
    images: int

    @property
    def frames(self) -> int:
        """F = T + M, all frames of one sample."""
        return self.video_frames + self.images


def fold_frames(x_BCFHW: Tensor) -> Tensor:
    """Frames into the batch, sample-major: ``[B * F, C, H, W]``."""
    return rearrange(x_BCFHW, "b c f h w -> (b f) c h w")


def unfold_frames(x_NCHW: Tensor, batch: int) -> Tensor:
    """Inverse of `fold_frames`: ``[B, C, F, H, W]``."""
    return rearrange(x_NCHW, "(b f) c h w -> b c f h w", b=batch)


def on_video_frames(
    layer: Callable[[Tensor], Tensor], x_BCFHW: Tensor, layout: FrameLayout
) -> Tensor:
    """Apply a temporal layer to the first T frames; the M images pass it by unchanged."""
    if layout.images == 0:
        return layer(x_BCFHW)
    video, images = x_BCFHW.split([layout.video_frames, layout.images], dim=2)
    return torch.cat([layer(video), images], dim=2)
