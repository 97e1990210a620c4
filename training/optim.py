"""AdamW and its learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.run_config import OptimConfig, Phase, TrainConfig


def learning_rate(config: OptimConfig, phase: Phase, step: int) -> float:
    """Learning rate of one step of a phase: linear warm-up, then constant or cosine.

    Args:
        config: Warm-up and decay.
        phase: Its length and largest learning rate.
        step: Number of the step within the phase, from 0.
    """
    if step < config.warmup_steps:
        return phase.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return phase.learning_rate
    length = max(1, phase.steps - config.warmup_steps)
    falling = 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / length))
    return phase.learning_rate * (config.final_share + (1 - config.final_share) * falling)


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters; its learning rate is set every step."""
    optim = config.optim
    return torch.optim.AdamW(
        [p for p in parameters if p.requires_grad],
        lr=config.phases[0].learning_rate,
        betas=optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def step_unless(optimizer: torch.optim.AdamW, found_inf: Tensor, learning_rate: float) -> None:
    """One step, or none where ``found_inf`` is 1.0; the host does not wait to know which.

    The fused kernels read the flag on the device, as they do for a gradient scaler.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    optimizer.step()
