"""What a network was trained to undo: its noise schedule, its prediction, its latents' scale.

Loading Stable Diffusion's own scheduler with a LaVie checkpoint is a silent error: LaVie trains
with linear betas whose last step has a signal-to-noise ratio of 4.0e-5, Stable Diffusion's has
4.7e-3. So the schedule is data that travels with the weights, and loading compares it.

Letters of DDPM (arXiv 2006.11239): beta_t the noise added at step t, alpha_bar_t the product of
1 - beta up to t, x_0 the clean latents, eps the noise, x_t = sqrt(alpha_bar_t) x_0 +
sqrt(1 - alpha_bar_t) eps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Stage = Literal["base", "interpolation", "super_resolution"]
Prediction = Literal["epsilon", "velocity", "sample"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSchedule:
    """Variance of the noise at every step, as the two ends of a curve."""

    curve: Literal["linear", "scaled_linear"] = "linear"
    """Linear in beta, or in the square root of beta."""
    beta_start: float = 1e-4
    """Variance added at step 0."""
    beta_end: float = 0.02
    """Variance added at the last step."""
    num_steps: int = 1000
    """Number of steps; times run from 0 to ``num_steps - 1``."""
    zero_terminal_snr: bool = False
    """Shift and scale sqrt(alpha_bar) so that the last step holds no signal (arXiv 2305.08891, alg. 1)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a curve that is no noise schedule."""
        if self.curve not in ("linear", "scaled_linear"):
            raise ValueError(f"curve must be linear or scaled_linear, got {self.curve!r}")
        if not 0 < self.beta_start < self.beta_end < 1:
            raise ValueError(
                f"betas must rise between 0 and 1, got {self.beta_start} to {self.beta_end}"
            )
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, got {self.num_steps}")

    @classmethod
    def lavie(cls) -> NoiseSchedule:
        """The one of all three released networks."""
        return cls()

    @classmethod
    def low_resolution(cls) -> NoiseSchedule:
        """The one that adds noise to the low-resolution frames of the super-resolution network."""
        return cls(curve="scaled_linear")

    @classmethod
    def stable_diffusion(cls) -> NoiseSchedule:
        """Stable Diffusion 1.4's, which LaVie does not use."""
        return cls(curve="scaled_linear", beta_start=0.00085, beta_end=0.012)

    def betas(self) -> Tensor:
        """beta_t of every step, float64 ``[num_steps]``."""
        import torch  # not needed to say what weights were trained for

        start, end = self.beta_start, self.beta_end
        if self.curve == "linear":
            return torch.linspace(start, end, self.num_steps, dtype=torch.float64)
        roots = torch.linspace(start**0.5, end**0.5, self.num_steps, dtype=torch.float64)
        return roots**2

    def alphas_cumprod(self) -> Tensor:
        """alpha_bar_t of every step, float64 ``[num_steps]``; falls from nearly 1 to nearly 0."""
        return _alphas_cumprod(self, "cpu").clone()

    def signal_and_noise(self, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), float64 ``[B]``, for integer times.

        Raises:
            ValueError: A time is not an integer, or lies outside the schedule; the latter is asked
                on the CPU only, since the host would wait for another device to know.
        """
        if timestep_B.is_floating_point():
            raise ValueError(f"timestep must hold integers, got {timestep_B.dtype}")
        if timestep_B.device.type == "cpu":
            lowest, highest = int(timestep_B.min()), int(timestep_B.max())
            if lowest < 0 or highest >= self.num_steps:
                raise ValueError(
                    f"timestep must be 0 to {self.num_steps - 1}, got {lowest} to {highest}"
                )
        alpha_bar = _alphas_cumprod(self, str(timestep_B.device))[timestep_B]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x0: Tensor, eps: Tensor, timestep_B: Tensor) -> Tensor:
        """x_t of each sample (DDPM, eq. 4), in x0's dtype.

        Args:
            x0: Clean samples ``[B, ...]``.
            eps: Standard normal noise of the same shape.
            timestep_B: Integer times, 0 to ``num_steps - 1``.
        """
        signal, noise = (_like(scale, x0) for scale in self.signal_and_noise(timestep_B))
        return signal * x0 + noise * eps

    def velocity(self, x0: Tensor, eps: Tensor, timestep_B: Tensor) -> Tensor:
        """v_t = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (arXiv 2202.00512, section 4)."""
        signal, noise = (_like(scale, x0) for scale in self.signal_and_noise(timestep_B))
        return signal * eps - noise * x0

    def signal_to_noise(self, timestep_B: Tensor) -> Tensor:
        """alpha_bar_t / (1 - alpha_bar_t), float64 ``[B]``; 0 at a zero-terminal-SNR last step."""
        signal, noise = self.signal_and_noise(timestep_B)
        return (signal / noise) ** 2


@cache
def _alphas_cumprod(schedule: NoiseSchedule, device: str) -> Tensor:
    if device != "cpu":  # the same numbers, copied once
        return _alphas_cumprod(schedule, "cpu").to(device)
    alpha_bar = (1 - schedule.betas()).cumprod(0)
    if not schedule.zero_terminal_snr:
        return alpha_bar
    signal = alpha_bar.sqrt()
    first, last = signal[0].clone(), signal[-1].clone()
    return ((signal - last) * first / (first - last)) ** 2


def _like(scale_B: Tensor, x: Tensor) -> Tensor:
    return scale_B.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What weights were trained for; weights without it cannot be sampled from rightly."""

    stage: Stage
    """Which network of the cascade."""
    prediction: Prediction
    """What the network predicts: the noise, the velocity or the clean latents."""
    latent_scale: float
    """Factor between the autoencoder's latents and those of the network."""
    schedule: NoiseSchedule = NoiseSchedule()
    """Noise of the latents."""
    low_resolution_schedule: NoiseSchedule | None = None
    """Noise of the low-resolution frames, for super-resolution."""

    def __post_init__(self) -> None:
        """Raise ValueError for a combination that names no objective."""
        if self.stage not in get_args(Stage):
            raise ValueError(f"stage must be one of {get_args(Stage)}, got {self.stage!r}")
        if self.prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction must be one of {get_args(Prediction)}, got {self.prediction!r}"
            )
        if self.schedule.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "zero_terminal_snr needs the velocity or the sample as prediction: without signal, "
                "the noise says nothing of the clean latents; got epsilon"
            )
        if self.latent_scale <= 0:
            raise ValueError(f"latent_scale must be positive, got {self.latent_scale}")
        if (self.low_resolution_schedule is None) == (self.stage == "super_resolution"):
            raise ValueError(
                f"low_resolution_schedule must be given for super_resolution and for no other "
                f"stage, got {self.low_resolution_schedule} for {self.stage}"
            )

    @classmethod
    def of(cls, stage: Stage) -> Objective:
        """The released network's objective.

        Base and interpolation predict the noise of Stable Diffusion 1.4's latents; super-resolution
        the velocity of the x4 upscaler's.
        """
        if stage == "super_resolution":
            return cls(
                stage=stage,
                prediction="velocity",
                latent_scale=0.08333,
                low_resolution_schedule=NoiseSchedule.low_resolution(),
            )
        return cls(stage=stage, prediction="epsilon", latent_scale=0.18215)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Objective:
        """Read what `to_json` wrote, or what a file of unknown origin holds.

        Raises:
            ValueError: A field is missing, unknown or out of range.
        """
        try:
            low = values.get("low_resolution_schedule")
            schedules = {
                "schedule": NoiseSchedule(**values["schedule"]),
                "low_resolution_schedule": None if low is None else NoiseSchedule(**low),
            }
            return cls(**(values | schedules))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an objective: {error}; got {values}") from error

    def digest(self) -> str:
        """SHA-256 of all fields, 64 hexadecimal digits; equal objectives have equal digests."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def check_equals(self, expected: Objective) -> None:
        """Raise ValueError that names every field in which these weights differ from the wish."""
        wrong = [
            f"{field.name} is {getattr(self, field.name)}, expected {getattr(expected, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(expected, field.name)
        ]
        if wrong:
            raise ValueError("the weights were trained for another objective: " + "; ".join(wrong))
