"""Given frames as the networks take them.

Shape letters: B videos, T frames, C channels, H W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.arguments import check_size

Frames = np.ndarray[Any, Any] | Tensor | Sequence[Any]
"""What a pipeline takes as video: an array ``[T, H, W, 3]`` or ``[B, T, H, W, 3]``, uint8 or 0 to 1;
a tensor ``[B, T, 3, H, W]``, 0 to 1; or a list of PIL images, or of such lists."""


def video_tensor(frames: Frames) -> Tensor:
    """RGB video ``[B, 3, T, H, W]``, fp32, -1 to 1, on the CPU.

    Raises:
        ValueError: It is no video: wrong shape or type, or values outside 0 to 1.
    """
    if isinstance(frames, Tensor):
        if frames.dim() != 5 or frames.shape[2] != 3:
            raise ValueError(f"video must be [B, T, 3, H, W], got shape {tuple(frames.shape)}")
        return _signed(frames.detach().cpu()).transpose(1, 2).contiguous()
    array = frames if isinstance(frames, np.ndarray) else _stacked(frames)
    if array.ndim == 4:
        array = array[None]
    if array.ndim != 5 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"video must be [T, H, W, 3] or [B, T, H, W, 3], got {array.shape}")
    video_BTHWC = torch.from_numpy(np.ascontiguousarray(array))
    return _signed(video_BTHWC).permute(0, 4, 1, 2, 3).contiguous()


def _stacked(frames: Sequence[Any]) -> np.ndarray[Any, Any]:
    if not frames:
        raise ValueError("video must have at least one frame, got none")
    videos = frames if isinstance(frames[0], (list, tuple)) else [frames]
    sizes = {np.asarray(frame).shape for video in videos for frame in video}
    if len(sizes) != 1 or len({len(video) for video in videos}) != 1:
        raise ValueError(f"videos must have frames of one size and number, got sizes {sizes}")
    return np.stack([np.stack([np.asarray(frame) for frame in video]) for video in videos])


def _signed(video: Tensor) -> Tensor:
    if video.dtype == torch.uint8:
        return video.float() / 127.5 - 1
    if not video.is_floating_point():
        raise ValueError(f"video must be uint8 or floating point, got {video.dtype}")
    lowest, highest = float(video.min()), float(video.max())
    if not (lowest >= 0 and highest <= 1):  # also where one is not a number
        raise ValueError(f"video must hold values 0 to 1, got {lowest} to {highest}")
    return video.float() * 2 - 1


def resized(video_BCTHW: Tensor, height: int | None, width: int | None) -> Tensor:
    """The video at another size, bilinear as in the release; checked to be of whole latents.

    Raises:
        ValueError: One side is given without the other, or a side is no multiple of 8.
    """
    if (height is None) != (width is None):
        raise ValueError(f"height and width must be given together, got {height} and {width}")
    own = (video_BCTHW.shape[-2], video_BCTHW.shape[-1])
    size = own if height is None or width is None else (height, width)
    check_size(*size)
    if size == own:
        return video_BCTHW
    frames = video_BCTHW.transpose(1, 2).flatten(0, 1)
    frames = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    return frames.unflatten(0, (video_BCTHW.shape[0], -1)).transpose(1, 2).contiguous()
