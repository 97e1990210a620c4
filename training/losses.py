"""What the network is asked for, and how its errors become one number.

Letters of DDPM (arXiv 2006.11239): x_0 clean latents, eps the noise, t the diffusion time,
alpha_bar_t the share of the signal's power; snr_t = alpha_bar_t / (1 - alpha_bar_t).
Shape letters: B samples, C channels, T video frames, M images, F = T + M, H W latents' height and
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.models.schedule import Objective
from training.run_config import LossConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """Mean squared errors of one micro-batch, fp32, still attached to the graph."""

    video_B: Tensor | None
    """Mean over T, C, H and W of each sample; None for a batch of images."""
    image_B: Tensor | None
    """Mean over M, C, H and W of each sample; None where there are no images."""


def objective_of(config: TrainConfig) -> Objective:
    """The objective of a run: the stage's own with what the run changes; its latents are the companions'.

    Raises:
        ValueError: The changes contradict each other.
    """
    own, loss = Objective.of(config.stage), config.loss
    return replace(
        own,
        prediction=loss.prediction or own.prediction,
        schedule=replace(own.schedule, zero_terminal_snr=loss.zero_terminal_snr),
    )


def target(objective: Objective, x0: Tensor, eps: Tensor, timestep_B: Tensor) -> Tensor:
    """What the network should say: eps, v (arXiv 2202.00512, section 4) or x_0; ``[B, ...]``."""
    if objective.prediction == "epsilon":
        return eps
    if objective.prediction == "sample":
        return x0
    return objective.schedule.velocity(x0, eps, timestep_B)


def min_snr_weight(objective: Objective, timestep_B: Tensor, gamma: float) -> Tensor:
    """Weight of each sample's squared error, float64 ``[B]`` (arXiv 2303.09556, section 3.4).

    min(snr, gamma) for an error in x_0; the same error in eps is that one divided by snr, in v by
    snr + 1.
    """
    snr = objective.schedule.signal_to_noise(timestep_B)
    clamped = snr.clamp(max=gamma)
    if objective.prediction == "sample":
        return clamped
    if objective.prediction == "epsilon":
        return clamped / snr
    return clamped / (snr + 1)


def uninformed_loss(objective: Objective, variance_C: Tensor, timesteps: Sequence[int]) -> float:
    """Mean squared error of the best predictor that knows no more than mean and variance of each channel.

    With x_t = a x_0 + b eps, a^2 = alpha_bar_t, b^2 = 1 - a^2, and s^2 the variance of x_0, the best linear
    guess from x_t leaves a^2 s^2 / n of eps, s^2 / n of v and b^2 s^2 / n of x_0, where n = a^2 s^2 + b^2.
    What a network has learnt of the films is what it stays below that.
    """
    schedule = objective.schedule
    a, b = schedule.signal_and_noise(torch.tensor(timesteps, device=variance_C.device))
    power = {"epsilon": a**2, "velocity": torch.ones_like(a), "sample": b**2}[objective.prediction]
    a, b, power = a[:, None], b[:, None], power[:, None]
    variance = variance_C.double()[None]
    return float((power * variance / (a**2 * variance + b**2)).mean())


def with_offset(eps_BCFHW: Tensor, shift_BCK: Tensor, num_video_frames: int) -> Tensor:
    """Noise whose mean moves: one shift for the video, shared by its frames, one for each image.

    Args:
        eps_BCFHW: Standard normal noise.
        shift_BCK: Shifts, already multiplied by their strength, K = min(1, T) + M.
        num_video_frames: T.
    """
    video = min(1, num_video_frames)
    frames = num_video_frames
    images = eps_BCFHW.shape[2] - frames
    per_frame_BCF = torch.cat(
        [shift_BCK[:, :, :video].expand(-1, -1, frames), shift_BCK[:, :, video : video + images]],
        dim=2,
    )
    return eps_BCFHW + per_frame_BCF[..., None, None].to(eps_BCFHW.dtype)


def frame_errors(
    predicted_BCFHW: Tensor, target_BCFHW: Tensor, weight_B: Tensor | None, num_video_frames: int
) -> FrameErrors:
    """Weighted mean squared errors of the video and of the images of each sample, in fp32."""
    squared_BF = (predicted_BCFHW.float() - target_BCFHW.float()).square().mean(dim=(1, 3, 4))
    if weight_B is not None:
        squared_BF = squared_BF * weight_B.to(squared_BF)[:, None]
    video_BT, image_BM = squared_BF[:, :num_video_frames], squared_BF[:, num_video_frames:]
    return FrameErrors(
        video_BT.mean(dim=1) if video_BT.shape[1] else None,
        image_BM.mean(dim=1) if image_BM.shape[1] else None,
    )


def image_weight(config: TrainConfig) -> float:
    """alpha: as set, else images over frames, which a mean over all frames implies."""
    if config.loss.image_weight is not None:
        return config.loss.image_weight
    return config.sample.images_per_video / config.sample.num_frames


def joint_loss(errors: FrameErrors, loss: LossConfig, alpha: float) -> Tensor:
    """L = L_video + alpha * L_image (paper, eq. 5), mean over the samples; a scalar.

    Where videos and images come in batches of their own, a batch holds one of the two terms. It is
    divided by the share of such batches, so that the expected gradient is that of the sum.
    """
    terms = []
    both = errors.video_B is not None and errors.image_B is not None
    separate = loss.joint == "separate" and not both
    if errors.video_B is not None:
        scale = 1 / (1 - loss.image_batch_share) if separate else 1.0
        terms.append(scale * errors.video_B.mean())
    if errors.image_B is not None:
        scale = 1 / loss.image_batch_share if separate else 1.0
        terms.append(scale * alpha * errors.image_B.mean())
    return torch.stack(terms).sum()
