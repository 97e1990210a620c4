"""How a batch's frames lie in its tensors, and the few ways they are laid out anew.

Shape letters: B samples, T video frames, M images, F = T + M frames, H W height and width,
C channels, N = H * W tokens of a frame, h heads, d width of a head.

LaVie trains on videos and images at once (arXiv 2309.15103, section 3.2): the images are
concatenated to the video along time, and every temporal layer passes them by.

The layouts are written with torch's own views, each under a name and tested against the einops
pattern of its docstring, because torch.compile traces einops line by line: that was nine tenths of
the time to trace the base network at a tiny size. On channels-last tensors the first six move no
data.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
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

    @property
    def texts(self) -> int:
        """K, one text for the video, if there is one, and one for each image."""
        return min(1, self.video_frames) + self.images


def fold_frames(x_BCFHW: Tensor) -> Tensor:
    """``b c f h w -> (b f) c h w``: frames into the batch, sample-major."""
    return x_BCFHW.transpose(1, 2).flatten(0, 1)


def unfold_frames(x_NCHW: Tensor, batch: int) -> Tensor:
    """``(b f) c h w -> b c f h w``."""
    return x_NCHW.unflatten(0, (batch, -1)).transpose(1, 2)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """``b c h w -> b (h w) c``: every position a token."""
    return x_BCHW.flatten(2).transpose(1, 2)


def from_tokens(x_BNC: Tensor, height: int) -> Tensor:
    """``b (h w) c -> b c h w``."""
    return x_BNC.transpose(1, 2).unflatten(2, (height, -1))


def by_sample(x_BNC: Tensor, batch: int) -> Tensor:
    """``(b f) n c -> b f n c``: the frames of a sample beside each other."""
    return x_BNC.unflatten(0, (batch, -1))


def by_frame(x_BFNC: Tensor) -> Tensor:
    """``b f n c -> (b f) n c``."""
    return x_BFNC.flatten(0, 1)


def to_time_lines(x_BTNC: Tensor) -> Tensor:
    """``b t n c -> (b n) t c``: the time line of every position."""
    return x_BTNC.transpose(1, 2).flatten(0, 1)


def from_time_lines(x_NTC: Tensor, batch: int) -> Tensor:
    """``(b n) t c -> b t n c``."""
    return x_NTC.unflatten(0, (batch, -1)).transpose(1, 2)


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """``b n (h d) -> b h n d``."""
    return x_BNC.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x_BhNd: Tensor) -> Tensor:
    """``b h n d -> b n (h d)``."""
    return x_BhNd.transpose(1, 2).flatten(2)


def on_video_frames(
    layer: Callable[[Tensor], Tensor], x_BCFHW: Tensor, layout: FrameLayout
) -> Tensor:
    """Apply a temporal layer to the first T frames; the M images pass it by unchanged."""
    if layout.images == 0:
        return layer(x_BCFHW)
    if layout.video_frames == 0:
        return x_BCFHW
    video, images = torch.split(x_BCFHW, [layout.video_frames, layout.images], dim=2)
    return torch.cat([layer(video), images], dim=2)
