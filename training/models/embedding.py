"""Embedding of the diffusion time."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_PERIOD = 10_000  # DDPM, arXiv 2006.11239, appendix B; the transformer's sinusoid


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A region that autocast leaves alone."""
    if device.type == "meta":  # has no autocast to switch off
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def sinusoid(timestep_B: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of the time at frequencies from 1 to 1 / 10000; fp32 ``[B, width]``."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=timestep_B.device)
    angle = timestep_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * index / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class FullPrecisionLinear(nn.Linear):
    """A linear layer that computes in fp32 whatever the dtype of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """fp32 ``[..., in]`` to fp32 ``[..., out]``."""
        return functional.linear(x, self.weight.float(), self.bias.float())


class TimeEmbedding(nn.Module):
    """Sinusoid of the time through two layers, in fp32 whatever the dtype of the network."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = FullPrecisionLinear(width, out_width)
        self.linear_2 = FullPrecisionLinear(out_width, out_width)

    def forward(self, timestep_B: Tensor) -> Tensor:
        """Times 0 to 999, ``[B]``, to fp32 ``[B, out_width]``."""
        with full_precision(timestep_B.device):
            hidden = functional.silu(self.linear_1(sinusoid(timestep_B, self.width)))
            out: Tensor = self.linear_2(hidden)
            return out
