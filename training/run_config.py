"""What a training run is made of: frozen dataclasses whose defaults are the paper's base stage.

`training/presets.py` has the named runs. A run's effective configuration is saved as config.json in
its folder and is read from there again by `--config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Suppress

from training.models.schedule import Prediction, Stage


def _check(rule: bool, text: str) -> None:
    if not rule:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What one sample of a batch is: T frames of one clip and M independent images."""

    num_frames: int = 16
    """T, frames of the clip (paper, section 4.1: 16)."""
    fps: float = 8.0
    """Frames taken a second of film; the release plays base videos at 8."""
    images_per_video: int = 4
    """M, images with captions of their own, concatenated along time (paper: 4)."""
    images_from: Literal["frames", "shards"] = "frames"
    """Single frames of other clips, or the image shards of the sources."""
    fit: Literal["cover", "patch"] = "cover"
    """Scale until the frame covers the size and crop; or take a patch without scaling."""
    crop: Literal["center", "random"] = "center"
    """Where to crop what covers; a patch is always taken at random."""
    image_clips: bool = False
    """Whether images of the shards also stand for clips, as crops that move over them (paper: VSR)."""
    caption_dropout: float = 0.1
    """How often a caption is replaced, for classifier-free guidance; 0 to 1."""
    dropped_caption: str = ""
    """What replaces it: the empty string in base, "None" in the other two."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.num_frames >= 1, f"num_frames must be at least 1, got {self.num_frames}")
        _check(self.fps > 0, f"fps must be positive, got {self.fps}")
        _check(
            self.images_per_video >= 0,
            f"images_per_video must be at least 0, got {self.images_per_video}",
        )
        _check(
            0 <= self.caption_dropout <= 1,
            f"caption_dropout must be 0 to 1, got {self.caption_dropout}",
        )

    @property
    def duration_s(self) -> float:
        """From the first frame to the last."""
        return (self.num_frames - 1) / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Exported shards of one selection of one corpus."""

    corpus: str
    """Folder or object-store prefix of the corpus."""
    selection: str = "default"
    """Name of the selection."""
    encoded: str | None = None
    """Digest that `lavie encode` printed: read latents and text states instead of pixels and words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the run with its own mixture, sizes and learning rate."""

    name: str = "only"
    """What logs and errors call it."""
    steps: int = 1000
    """Optimizer steps."""
    source_weights: tuple[float, ...] = ()
    """Share of the batches from each source; empty: by the number of their samples."""
    sizes_px: tuple[tuple[int, int], ...] = ((320, 512),)
    """Height and width of frames; a clip goes to the size nearest to its shape."""
    learning_rate: float = 1e-4
    """Largest, after warm-up (Latte, the same group: 1e-4)."""
    trainable: Literal["all", "temporal"] = "all"
    """All parameters (paper: base, interpolation) or those named temporal (paper: VSR)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(
            self.steps >= 1, f"steps of phase {self.name!r} must be at least 1, got {self.steps}"
        )
        _check(
            self.learning_rate > 0,
            f"learning_rate of phase {self.name!r} must be positive, got {self.learning_rate}",
        )
        _check(bool(self.sizes_px), f"sizes_px of phase {self.name!r} must name a size")
        for height, width in self.sizes_px:
            _check(
                height > 0 and width > 0 and height % 8 == 0 and width % 8 == 0,
                f"sizes_px must be positive multiples of 8, got {height}x{width}",
            )
        _check(
            all(weight >= 0 for weight in self.source_weights)
            and (not self.source_weights or sum(self.source_weights) > 0),
            f"source_weights must be at least 0 and not all 0, got {self.source_weights}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where samples come from and how they are read."""

    sources: tuple[Source, ...] = ()
    """Exported selections."""
    batch_size: int = 80
    """Samples of one optimizer step, over all ranks and micro-batches (Cinemo, same network: 80)."""
    micro_batch_size: int = 1
    """Samples that one rank holds at once; changes the speed, not the batch."""
    holdout_share: float = 0.01
    """Share of the clips that are never trained on and give the held-out loss."""
    holdout_by: Literal["source", "clip"] = "source"
    """Hold out whole films, so that no neighbouring shot is trained on; or single clips."""
    max_dropped_share: float = 0.01
    """Share of the selection's clips that may be unusable (too short, too small, no caption)."""
    max_failed_share: float = 0.01
    """Share of the samples that may fail to decode and be replaced."""
    window_shards: int = 10
    """Shards whose samples are mixed with each other; more mixes better and reads more widely."""
    num_workers: int = 2
    """Processes that read and decode for one rank; 0 reads in the trainer itself."""
    prefetch: int = 2
    """Micro-batches that each of them keeps ready."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in ("batch_size", "micro_batch_size", "window_shards", "prefetch"):
            _check(
                getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"
            )
        for name in ("holdout_share", "max_dropped_share", "max_failed_share"):
            _check(
                0 <= getattr(self, name) <= 1, f"{name} must be 0 to 1, got {getattr(self, name)}"
            )
        _check(self.num_workers >= 0, f"num_workers must be at least 0, got {self.num_workers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained, from what, beside which frozen companions."""

    initial_weights: str = "tiny"
    """A model folder of this project, a released .pt, an image model's folder to grow from (base:
    Stable Diffusion 1.4; super-resolution: the x4 upscaler), or 'tiny': small, seeded, untrained."""
    companions: str | None = None
    """Folder with vae/, text_encoder/ and tokenizer/ (frozen autoencoder and text encoder); by default
    the folder of the initial weights, where it has them."""
    first_frame_channels: bool = False
    """Base only: five more input channels, a mask and the first frame's latents (SEINE), for long
    video by continuation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """What the network is asked for and how errors are weighed."""

    prediction: Prediction | None = None
    """epsilon, velocity or sample; None for what the stage was released with."""
    image_weight: float | None = None
    """alpha of L = L_video + alpha * L_image. The paper gives no value; None is images/frames, which
    the group's published loss implies (a mean over all frames)."""
    joint: Literal["concatenated", "separate"] = "concatenated"
    """Images behind the frames of each video (paper), or batches of videos and of images."""
    image_batch_share: float = 0.5
    """Share of the batches that hold images, where they are separate."""
    min_snr_gamma: float | None = None
    """Clamp of the signal-to-noise weight (arXiv 2303.09556: 5); None for none."""
    offset_noise: float = 0.0
    """Strength of a shift of the noise shared by all pixels and frames of a clip."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that the last step holds no signal (arXiv 2305.08891); velocity only."""
    condition_noise_steps: int = 0
    """Interpolation: noise of a random time below this many steps on the key frames; 0 for none."""
    max_noise_level: int = 349
    """Super-resolution: largest noise level of the low-resolution frames."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(
            self.image_weight is None or self.image_weight >= 0,
            f"image_weight must be at least 0, got {self.image_weight}",
        )
        _check(
            0 < self.image_batch_share < 1,
            f"image_batch_share must lie between 0 and 1, got {self.image_batch_share}",
        )
        _check(
            self.min_snr_gamma is None or self.min_snr_gamma > 0,
            f"min_snr_gamma must be positive, got {self.min_snr_gamma}",
        )
        _check(self.offset_noise >= 0, f"offset_noise must be at least 0, got {self.offset_noise}")
        _check(
            0 <= self.condition_noise_steps <= 1000,
            f"condition_noise_steps must be 0 to 1000, got {self.condition_noise_steps}",
        )
        _check(
            0 <= self.max_noise_level <= 350,
            f"max_noise_level must be 0 to 350, got {self.max_noise_level}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW, its learning rate over time, and the average of the weights."""

    warmup_steps: int = 0
    """Steps over which the learning rate of a phase rises from 0 (LaVie's code: up to 5000)."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after warm-up."""
    final_share: float = 0.0
    """Of the learning rate, where a cosine ends."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled (Latte: 0)."""
    clip_norm: float | None = 1.0
    """Largest norm of the accumulated gradient; None for none."""
    ema_decay: float = 0.9999
    """Of the average of the weights, once a step (LaVie, Latte: 0.9999); always fp32."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.warmup_steps >= 0, f"warmup_steps must be at least 0, got {self.warmup_steps}")
        _check(0 <= self.final_share <= 1, f"final_share must be 0 to 1, got {self.final_share}")
        _check(
            self.clip_norm is None or self.clip_norm > 0,
            f"clip_norm must be positive, got {self.clip_norm}",
        )
        _check(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters on the spatial layers; everything else stands still (paper, section 3.5)."""

    rank: int = 0
    """Of the two factors; 0 for no adapters. The paper gives none; 16 is usual."""
    alpha: int = 16
    """The adapter's output is multiplied by alpha / rank."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.rank >= 0, f"rank must be at least 0, got {self.rank}")
        _check(self.alpha > 0, f"alpha must be positive, got {self.alpha}")

    @property
    def enabled(self) -> bool:
        """Whether there are adapters."""
        return self.rank > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConfig:
    """How the work is laid on the machine: none of it changes what is learnt."""

    autocast: Literal["off", "bf16"] = "bf16"
    """Of the forward and backward pass; master weights, loss and average are fp32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Whole copies, or shards of the state (FSDP2); LaVie's 0.9 B fit a card whole."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass."""
    compile: bool = False
    """torch.compile the network."""
    channels_last: bool = False
    """Store convolutions channels-last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveConfig:
    """Checkpoints."""

    every_steps: int = 1000
    """Between two checkpoints; the last step and SIGTERM always make one."""
    keep: int = 3
    """Newest ones that are kept, beside the one with the best held-out loss."""
    asynchronous: bool = True
    """Write while training goes on."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.every_steps >= 1, f"every_steps must be at least 1, got {self.every_steps}")
        _check(self.keep >= 1, f"keep must be at least 1, got {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """What is logged, measured and looked at."""

    log_every_steps: int = 10
    """Between two lines and two points of a curve; the only time the host waits for the device."""
    evaluate_every_steps: int = 1000
    """Between two held-out losses; the last step always has one."""
    evaluation_samples: int = 64
    """Held-out samples of each bucket that are measured; fixed."""
    evaluation_timesteps: tuple[int, ...] = (50, 250, 450, 650, 850)
    """Diffusion times at which each is measured, with fixed noise."""
    sample_every_steps: int | None = None
    """Between two sampled videos; None for none."""
    sample_prompts: tuple[str, ...] = ("a panda drinking coffee in a cafe in Paris",)
    """What is sampled."""
    max_nonfinite_steps: int = 20
    """Steps with a loss or gradient that is not finite, after which the run stops."""
    spike_factor: float = 5.0
    """A loss so many times the running median is logged with its clips."""
    wandb_project: str | None = None
    """Also log to Weights & Biases, if its package is installed."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in ("log_every_steps", "evaluate_every_steps", "evaluation_samples"):
            _check(
                getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"
            )
        _check(
            bool(self.evaluation_timesteps)
            and all(0 <= t < 1000 for t in self.evaluation_timesteps),
            f"evaluation_timesteps must be 0 to 999, got {self.evaluation_timesteps}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run: a stage of the cascade, its data, its objective, its curriculum."""

    stage: Annotated[Stage, Suppress] = "base"
    """Which network of the cascade; on the command line it is the word after `train`."""
    seed: int = 0
    """Of order, crops, noise, times and dropped captions: all are functions of it."""
    phases: tuple[Phase, ...] = (Phase(),)
    """The curriculum, in order (paper: WebVid10M and Laion5B first, then Vimeo25M)."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """What one sample is."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where samples come from."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The objective."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Train adapters only, where their rank is not 0."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Precision and parallelism."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """Checkpoints."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """Logging and held-out loss."""

    def __post_init__(self) -> None:
        """Raise ValueError where fields contradict each other."""
        _check(bool(self.phases), "phases must name at least one phase")
        for phase in self.phases:
            _check(
                len(phase.source_weights) in (0, len(self.data.sources)),
                f"source_weights of phase {phase.name!r} must have one weight for each of the "
                f"{len(self.data.sources)} sources, got {len(phase.source_weights)}",
            )
        _check(
            not self.sample.image_clips or self.stage == "super_resolution",
            f"image_clips is for super_resolution, got {self.stage}",
        )
        _check(
            self.loss.joint == "concatenated" or self.sample.images_per_video > 0,
            "joint 'separate' needs images_per_video of at least 1",
        )
        _check(
            not self.model.first_frame_channels or self.stage == "base",
            f"first_frame_channels is for base, got {self.stage}",
        )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_of(self, step: int) -> tuple[int, int]:
        """Index of the phase that a step belongs to, and the step's number within it.

        Raises:
            ValueError: The run has no such step.
        """
        left = step
        for index, phase in enumerate(self.phases):
            if 0 <= left < phase.steps:
                return index, left
            left -= phase.steps
        raise ValueError(f"step must be 0 to {self.num_steps - 1}, got {step}")
