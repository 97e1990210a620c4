"""Samplers for what a network was trained to undo: diffusers' schedulers with LaVie's numbers.

The release pins diffusers 0.16; newer versions read some settings differently. Each rule below
gives the release's times on the installed version, and the tests check every step against its
equation.

Letters of DDIM (arXiv 2010.02502): alpha_bar_t the share of signal left at time t, x_t the noisy
latents, x_0 the clean ones, eps the noise.
"""

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from inference.diffusers_names import (
    BaseOutput,
    ConfigMixin,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    register_to_config,
)
from inference.settings import SchedulerName
from training.models.schedule import NoiseSchedule, Objective, Stage

RELEASED: dict[Stage, SchedulerName] = {
    "base": "ddpm",
    "interpolation": "respaced-ddim",
    "super_resolution": "ddim",
}
"""Sampler of each stage in LaVie's release, at 50 steps."""

PREDICTION_TYPES = {"epsilon": "epsilon", "velocity": "v_prediction", "sample": "sample"}


def make_scheduler(name: SchedulerName, objective: Objective) -> Any:
    """A diffusers scheduler for weights of this objective.

    Args:
        name: ``ddpm`` starts at 980 and ends at 0 with 50 steps (the release ran before diffusers
            honoured an offset there); ``ddim`` 981 to 1; ``euler`` and ``dpm-solver++`` spread
            their times evenly from 999 to 0; ``respaced-ddim`` is `RespacedDDIMScheduler`.
        objective: What the weights were trained for. With a zero-terminal-SNR schedule every
            sampler starts at the last time, which alone holds no signal (arXiv 2305.08891).

    Raises:
        ValueError: There is no sampler of this name.
    """
    if name not in get_args(SchedulerName):
        raise ValueError(f"scheduler must be one of {get_args(SchedulerName)}, got {name!r}")
    noise = objective.schedule
    shared: dict[str, Any] = {
        "num_train_timesteps": noise.num_steps,
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "beta_schedule": noise.curve,
        "prediction_type": PREDICTION_TYPES[objective.prediction],
    }
    if name == "respaced-ddim":
        return RespacedDDIMScheduler(zero_terminal_snr=noise.zero_terminal_snr, **shared)
    if noise.zero_terminal_snr:
        shared |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if name == "ddpm":
        return DDPMScheduler(**shared, steps_offset=0, clip_sample=False)
    if name == "ddim":
        offset = 0 if noise.zero_terminal_snr else 1
        return DDIMScheduler(
            **shared, steps_offset=offset, clip_sample=False, set_alpha_to_one=False
        )
    return (EulerDiscreteScheduler if name == "euler" else DPMSolverMultistepScheduler)(**shared)


class RespacedDDIMOutput(BaseOutput):
    """One step's result."""

    prev_sample: Tensor
    """The latents of the next, less noisy time."""


class RespacedDDIMScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """DDIM without noise of its own (eta 0) over times that span the whole schedule.

    LaVie's interpolation keeps n of T times by rounding the multiples of (T - 1) / (n - 1), so that
    the first step starts at T - 1 and the last ends at clean latents (alpha_bar 1); its spacing is
    uneven, which diffusers' DDIM cannot step over. Computed in fp64 and given back in the sample's
    dtype.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        prediction_type: str = "epsilon",
        zero_terminal_snr: bool = False,
    ) -> None:
        noise = NoiseSchedule(
            curve=cast("Literal['linear', 'scaled_linear']", beta_schedule),
            beta_start=beta_start,
            beta_end=beta_end,
            num_steps=num_train_timesteps,
            zero_terminal_snr=zero_terminal_snr,
        )
        self.alphas_cumprod = noise.alphas_cumprod()
        self.init_noise_sigma = 1.0
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.num_inference_steps: int | None = None

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None
    ) -> None:
        """Keep this many times, the noisiest first."""
        highest = int(self.config["num_train_timesteps"]) - 1
        if not 2 <= num_inference_steps <= highest + 1:
            raise ValueError(
                f"num_inference_steps must be 2 to {highest + 1}, got {num_inference_steps}"
            )
        stride = highest / (num_inference_steps - 1)
        kept = [round(step * stride) for step in range(num_inference_steps)]
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.tensor(kept[::-1], device=device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | int | None = None) -> Tensor:
        """The sample itself: this sampler scales nothing."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        *,
        return_dict: bool = True,
    ) -> RespacedDDIMOutput | tuple[Tensor]:
        """Latents of the next kept time: sqrt(a') x_0 + sqrt(1 - a') eps (arXiv 2010.02502)."""
        index = int((self.timesteps == timestep).nonzero()[0])
        a = self.alphas_cumprod[int(timestep)]
        last = index == len(self.timesteps) - 1
        a_next = torch.ones((), dtype=a.dtype)
        if not last:
            a_next = self.alphas_cumprod[int(self.timesteps[index + 1])]
        x, predicted = sample.double(), model_output.double()
        if self.config["prediction_type"] == "epsilon":
            eps = predicted
            x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        elif self.config["prediction_type"] == "v_prediction":
            eps = a.sqrt() * predicted + (1 - a).sqrt() * x
            x0 = a.sqrt() * x - (1 - a).sqrt() * predicted
        else:
            x0 = predicted
            eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        following = (a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps).to(sample.dtype)
        return RespacedDDIMOutput(prev_sample=following) if return_dict else (following,)
