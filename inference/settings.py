"""How videos are sampled: stages, sizes, samplers, machine. Importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from inference.arguments import check_size
from inference.tiles import Tiling
from training.models.schedule import Stage

if TYPE_CHECKING:
    from inference.memory import Machine

SchedulerName = Literal["ddpm", "ddim", "respaced-ddim", "euler", "dpm-solver++"]
ORDER: tuple[Stage, ...] = ("base", "interpolation", "super_resolution")
MAX_SEEDS = 2**63  # of torch's generators, which take them as signed numbers of 64 bits
MAX_NOISE_LEVEL = 350
MAX_FRAMES = 32
"""Frames that temporal attention can tell apart: its bias has no bucket beyond (MAX_DISTANCE)."""
MAX_KEY_FRAMES = 16
"""What the interpolation network learned on: 16 key frames, 61 frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """How one stage samples."""

    steps: int = 50
    """Denoising steps, at least 1; guidance calls the network twice in each."""
    guidance: float | None = None
    """Guidance scale, the weight of the prompt; None: 7.5 base, 4 interpolation, 5 super-resolution."""
    negative: str | None = None
    """Negative prompt; None: empty base, "None" interpolation, "blur, worst quality" super-resolution."""
    scheduler: SchedulerName | None = None
    """Sampler; None: ddpm, respaced-ddim, ddim by stage. dpm-solver++ does with 15 to 25 steps."""
    seed: int | None = None
    """Seed of this stage's noise; None takes --seed (the release has 3418 and 10)."""
    fps: float | None = None
    """Frames a second of this stage's result, above 0; None: 8, 24, and those of the enlarged video."""

    def __post_init__(self) -> None:
        """Raise ValueError for steps or paces that cannot be."""
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if self.seed is not None and not 0 <= self.seed < MAX_SEEDS:
            raise ValueError(f"seed must be 0 to {MAX_SEEDS - 1}, got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeConfig:
    """Which stages run, on what sizes."""

    stages: tuple[Stage, ...] = ("base",)
    """Stages of the cascade that run, in its order."""
    height: int = 320
    """Height in pixels of base and interpolated frames, a multiple of 8."""
    width: int = 512
    """Width in pixels of base and interpolated frames, a multiple of 8."""
    num_frames: int = 16
    """Frames of the base video, 1 to 16; more only with --window-overlap."""
    window_overlap: int | None = None
    """Base frames shared by neighbouring windows of 16, 0 to 15, for long videos; None samples at once."""
    noise_level: int = 50
    """Noise on the frames that super-resolution enlarges, 0 to 350."""
    tiling: Tiling = field(default_factory=Tiling)
    """How super-resolution cuts a video into tiles."""
    noise_from: Literal["cpu", "cuda"] = "cpu"
    """Device of random numbers: cpu gives the same on every machine, cuda what the release gives."""
    base: StageSettings = field(default_factory=StageSettings)
    """How the base stage samples."""
    interpolation: StageSettings = field(default_factory=StageSettings)
    """How the interpolation stage samples."""
    super_resolution: StageSettings = field(default_factory=StageSettings)
    """How the super-resolution stage samples."""

    def __post_init__(self) -> None:
        """Raise ValueError for a way that leads nowhere."""
        if not self.stages or list(self.stages) != [s for s in ORDER if s in self.stages]:
            raise ValueError(
                f"stages must be some of {', '.join(ORDER)}, in this order, got {self.stages}"
            )
        check_size(self.height, self.width)
        if not 0 <= self.noise_level <= MAX_NOISE_LEVEL:
            raise ValueError(f"noise_level must be 0 to {MAX_NOISE_LEVEL}, got {self.noise_level}")
        if self.noise_from not in ("cpu", "cuda"):
            raise ValueError(f"noise_from must be cpu or cuda, got {self.noise_from!r}")
        if self.window_overlap is not None and not 0 <= self.window_overlap < MAX_KEY_FRAMES:
            raise ValueError(
                f"window_overlap must be 0 to {MAX_KEY_FRAMES - 1}, got {self.window_overlap}"
            )
        most = MAX_KEY_FRAMES if "interpolation" in self.stages else MAX_FRAMES
        if self.num_frames < 1 or (self.window_overlap is None and self.num_frames > most):
            raise ValueError(
                f"num_frames must be 1 to {most} without window_overlap, got {self.num_frames}"
            )
        if self.interpolation.steps < 2:
            raise ValueError(
                f"interpolation.steps must be at least 2, got {self.interpolation.steps}"
            )

    def settings(self, stage: Stage) -> StageSettings:
        """Those of one stage."""
        chosen: StageSettings = getattr(self, stage)
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineConfig:
    """Where networks run; "auto" is decided where they run, on a worker perhaps."""

    device: str = "auto"
    """cpu, cuda or cuda:1; auto takes CUDA where there is one."""
    dtype: str = "auto"
    """Number format fp32, fp16 or bf16; auto is fp16 on CUDA and fp32 on a processor."""
    low_memory: bool = False
    """Less than half the memory, slower: idle models wait on the processor, frames go one by one."""
    compile: bool = False
    """Compile the networks: minutes at first, faster from then on."""
    reuse_features: int = 1
    """Steps that one whole call of a network serves; 3 is about twice as fast, at a loss of detail."""

    def __post_init__(self) -> None:
        """Raise ValueError for a saving that cannot be."""
        if self.reuse_features < 1:
            raise ValueError(f"reuse_features must be at least 1, got {self.reuse_features}")

    def resolved(self) -> Machine:
        """The machine that this process has.

        Raises:
            ValueError: torch does not have the device or the dtype.
        """
        import torch

        from inference.memory import Machine

        auto = "cuda" if torch.cuda.is_available() else "cpu"
        device = auto if self.device == "auto" else self.device
        dtype = ("fp32" if device == "cpu" else "fp16") if self.dtype == "auto" else self.dtype
        return Machine(
            device=device,
            dtype=dtype,  # type: ignore[arg-type]
            low_memory=self.low_memory,
            compile=self.compile,
            reuse_features=self.reuse_features,
        )
