"""What a training run is made of: frozen dataclasses whose defaults are the paper's base stage.

`training/presets.py` has the named runs. A run's effective configuration is saved as config.json in
its folder and is read from there again by `--config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Suppress, arg

from training.models.schedule import Objective, Prediction, Stage

FRESH = ("tiny", "mini")
"""Networks that a run can start from without any weights, by their size."""


def _check(rule: bool, text: str) -> None:
    if not rule:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What one sample of a batch is: T frames of one clip and M independent images."""

    num_frames: int = 16
    """Frames of the clip in a sample, T; at least 1 (paper, section 4.1: 16)."""
    fps: float = 8.0
    """Frames taken of a second of film; the released base network's videos play at 8."""
    pace: Literal["even", "nearest"] = "even"
    """'even' takes every k-th frame (k = film's rate / `fps`, rounded), so that steps are alike and a sample
    of 30 frames a second runs at 7.5, not 8; 'nearest' keeps `fps` and lets steps differ by a frame."""
    rate_tolerance: float = 0.25
    """How far the rate of a sample may be from `fps` at an even pace, as a share, 0 to below 1; other clips
    are left out. A quarter lets films of 30 frames a second train a model of 24."""
    images_per_video: int = 4
    """Images beside each clip, M, with captions of their own (paper: 4); 0 for clips alone."""
    images_from: Literal["frames", "shards"] = "frames"
    """Where images come from: single frames of other clips, or the image shards of the corpora."""
    fit: Literal["cover", "patch"] = "cover"
    """'cover' scales a frame until it covers the size, then crops; 'patch' cuts without scaling."""
    crop: Literal["center", "random"] = "center"
    """Where a frame that covers the size is cropped; a patch always lies at random."""
    image_clips: bool = False
    """Super-resolution: image shards also give clips, as crops that move over them (paper: VSR)."""
    caption_dropout: float = 0.1
    """Share of captions replaced by the dropped caption, for classifier-free guidance; 0 to 1."""
    dropped_caption: str = ""
    """Text in place of a dropped caption; the presets: empty for base, "None" for the other stages."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.num_frames >= 1, f"num_frames must be at least 1, got {self.num_frames}")
        _check(self.fps > 0, f"fps must be positive, got {self.fps}")
        _check(
            0 <= self.rate_tolerance < 1,
            f"rate_tolerance must be 0 to below 1, got {self.rate_tolerance}",
        )
        _check(
            self.images_per_video >= 0,
            f"images_per_video must be at least 0, got {self.images_per_video}",
        )
        _check(
            0 <= self.caption_dropout <= 1,
            f"caption_dropout must be 0 to 1, got {self.caption_dropout}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Exported shards of one selection of one corpus."""

    corpus: str
    """Folder or object-store prefix of the corpus."""
    selection: str = "default"
    """Name of the exported selection."""
    encoded: str | None = None
    """Digest that `lavie encode` printed, to read latents and text states; None reads pixels and words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the run with its own mixture, sizes and learning rate."""

    name: str = "only"
    """Name of the phase in logs and errors."""
    steps: int = 1000
    """Optimizer steps of the phase; at least 1."""
    source_weights: tuple[float, ...] = ()
    """Share of the batches from each corpus, one number each; empty: by their numbers of samples."""
    sizes_px: tuple[tuple[int, int], ...] = ((320, 512),)
    """Heights and widths of frames in pixels, multiples of 8; a clip goes to the nearest shape."""
    learning_rate: float = 1e-4
    """Learning rate after warm-up, above 0 (Latte, of the same group: 1e-4)."""
    trainable: Literal["all", "temporal"] = "all"
    """Parameters that learn: all (paper: base, interpolation) or those named temporal (paper: VSR)."""

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
    """Exported selections to read, as corpus, selection and digest of encoded latents."""
    batch_size: int = 80
    """Samples of an optimizer step over all ranks, a multiple of ranks x micro-batch (Cinemo: 80)."""
    micro_batch_size: int = 1
    """Samples that one rank holds at once; changes speed and memory, not what is learnt."""
    holdout_share: float = 0.01
    """Share of the clips, 0 to 1, that are never trained on and give the held-out loss; with splits
    the selection's own share counts."""
    holdout_by: Literal["split", "source", "clip"] = "split"
    """Hold out what the selection calls 'val' and train on 'train' alone, or on shards that know no splits
    as 'source': whole films, so that no neighbouring shot is trained on. 'clip': single clips. 'source' and
    'clip' do not ask for splits, so that 'test' is trained on too."""
    max_dropped_share: float = 0.01
    """Share of the clips, 0 to 1, that may be unusable: too short, too small, without caption."""
    max_failed_share: float = 0.01
    """Share of the samples, 0 to 1, that may fail to decode and be replaced."""
    allow_stopgap_captions: Annotated[bool, arg(prefix_name=False)] = False
    """Train on captions made of tags too ("A video of a diaper and a pinwheel", `caption_engine` tags);
    left out, a selection that holds some is refused."""
    window_shards: int = 10
    """Shards whose samples are mixed with each other; more mixes better and reads more widely."""
    num_workers: int = 2
    """Processes that read and decode for one rank; 0 reads in the trainer itself."""
    prefetch: int = 2
    """Micro-batches that each reading process keeps ready; at least 1."""

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
        _check(
            self.batch_size % self.micro_batch_size == 0,
            f"batch_size must be a multiple of micro_batch_size, got {self.batch_size} "
            f"and {self.micro_batch_size}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network is trained, from what, beside which frozen companions."""

    initial_weights: str = "tiny"
    """Model folder, released .pt, image model's folder to grow from, or 'tiny', 'mini' (untrained)."""
    companions: str | None = None
    """Folder with vae/, text_encoder/, tokenizer/; None takes those of the initial weights."""
    first_frame_channels: bool = False
    """Base: add input channels for a mask and the first frame (SEINE), to continue videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """What the network is asked for and how errors are weighed."""

    prediction: Prediction | None = None
    """What the network predicts; None for what the stage was released with."""
    image_weight: float | None = None
    """Weight of the image loss beside the video loss, at least 0; None is images per frame (ours)."""
    joint: Literal["concatenated", "separate"] = "concatenated"
    """Images behind the frames of each clip (paper), or separate batches of clips and of images."""
    image_batch_share: float = 0.5
    """Share of the batches that hold images, between 0 and 1, where --loss.joint is separate."""
    min_snr_gamma: float | None = None
    """Clamp of the signal-to-noise weight, above 0 (arXiv 2303.09556: 5); None weighs all alike."""
    offset_noise: float = 0.0
    """Strength of a noise shift shared by all pixels and frames of a clip, at least 0; 0 for none."""
    zero_terminal_snr: bool = False
    """No signal in the schedule's last step (arXiv 2305.08891); needs --loss.prediction velocity."""
    condition_noise_steps: int = 0
    """Interpolation: noise on key frames, of a random time below this, 0 to 1000; 0 for none."""
    max_noise_level: int = 349
    """Super-resolution: largest noise level of the low-resolution frames, 0 to 350."""

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
    """Steps over which a phase's learning rate rises from 0 (LaVie's code: up to 5000)."""
    decay: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate after warm-up, in each phase."""
    final_share: float = 0.0
    """Share of the learning rate, 0 to 1, at which a cosine decay ends."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the first and second moment, each below 1."""
    eps: float = 1e-8
    """AdamW's number added to the root of the second moment, against division by 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay, at least 0 (Latte: 0)."""
    clip_norm: float | None = 1.0
    """Largest norm of the accumulated gradient, above 0; None does not clip."""
    ema_decay: float = 0.9999
    """Decay a step of the weights' fp32 moving average, 0 to below 1 (LaVie, Latte: 0.9999)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for beta in self.betas:
            _check(0 <= beta < 1, f"betas must be in [0, 1), got {self.betas}")
        _check(self.eps > 0, f"eps must be positive, got {self.eps}")
        _check(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
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
    """Rank of the low-rank adapters; 0 trains the network itself (the paper gives none, 16 is usual)."""
    alpha: int = 16
    """The adapters' output is multiplied by alpha / rank; above 0."""

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
    """Precision of forward and backward pass; weights, loss and moving average stay fp32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Whole copies of the network on each rank, or shards (FSDP2); LaVie's 0.9 B fit a card whole."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass: less memory, slower."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at first, faster from then on."""
    channels_last: bool = False
    """Store the weights of convolutions channels-last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveConfig:
    """Checkpoints."""

    every_steps: int = 1000
    """Steps between two checkpoints; the last step, SIGTERM and Ctrl-C make one too."""
    keep: int = 3
    """Newest checkpoints that are kept, at least 1, beside the one with the best held-out loss."""
    asynchronous: bool = True
    """Write checkpoints while training goes on."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        _check(self.every_steps >= 1, f"every_steps must be at least 1, got {self.every_steps}")
        _check(self.keep >= 1, f"keep must be at least 1, got {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """What is logged, measured and looked at."""

    log_every_steps: int = 10
    """Steps between two lines of the log; only then the host waits for the device."""
    evaluate_every_steps: int = 1000
    """Steps between two held-out losses; the first and the last step always have one."""
    evaluation_samples: int = 64
    """Held-out samples of each kind and size that are measured, always the same ones."""
    evaluation_timesteps: tuple[int, ...] = (50, 250, 450, 650, 850)
    """Diffusion times, 0 to 999, at which each held-out sample is measured."""
    sample_every_steps: int | None = None
    """Steps between two sampled videos; None samples none."""
    sample_prompts: tuple[str, ...] = ("a panda drinking coffee in a cafe in Paris",)
    """Prompts of the videos that base samples in mid-training."""
    max_nonfinite_steps: int = 20
    """Steps with a loss or gradient that is not finite, beyond which the run stops."""
    spike_factor: float = 5.0
    """A loss this many times the running median is logged with the clips of its step."""
    wandb_project: str | None = None
    """Weights & Biases project to log to as well, if the package wandb is installed."""

    def __post_init__(self) -> None:
        """Raise ValueError for a field outside its range."""
        for name in (
            "log_every_steps",
            "evaluate_every_steps",
            "evaluation_samples",
            "sample_every_steps",
        ):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        _check(
            self.max_nonfinite_steps >= 0,
            f"max_nonfinite_steps must be at least 0, got {self.max_nonfinite_steps}",
        )
        _check(self.spike_factor > 1, f"spike_factor must be above 1, got {self.spike_factor}")
        _check(
            bool(self.evaluation_timesteps)
            and all(0 <= t < 1000 for t in self.evaluation_timesteps),
            f"evaluation_timesteps must be 0 to 999, got {self.evaluation_timesteps}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run: a stage of the cascade, its data, its objective, its curriculum."""

    stage: Annotated[Stage, Suppress] = "base"
    """Network of the cascade; on the command line it is the word after `train`."""
    seed: int = 0
    """Seed of order, crops, noise, diffusion times and dropped captions: all are functions of it."""
    phases: tuple[Phase, ...] = (Phase(),)
    """The curriculum, in order (paper: WebVid10M and Laion5B first, then Vimeo25M)."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """What one sample of a batch is."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where samples come from and how they are read."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which network is trained, from which weights."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What the network predicts and how its errors are weighed."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """AdamW, its learning rate over time, and the moving average of the weights."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adapters in place of the whole network, where their rank is not 0."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Precision and parallelism: nothing of it changes what is learnt."""
    save: SaveConfig = field(default_factory=SaveConfig)
    """When checkpoints are written and how many are kept."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """What is logged, measured and sampled on the way."""

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
        prediction = self.loss.prediction or Objective.of(self.stage).prediction
        _check(
            not self.loss.zero_terminal_snr or prediction != "epsilon",
            "zero_terminal_snr needs loss.prediction velocity or sample: without signal, the noise "
            f"says nothing of the clean latents; got {prediction}",
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
