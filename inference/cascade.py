"""From a prompt through the stages to a video: LaVie's four ways through its cascade.

    base                                              16 frames of 320x512
    base, interpolation                               61 frames
    base, super_resolution                            16 frames of 1280x2048
    base, interpolation, super_resolution             61 frames of 1280x2048

A given video may stand for the base stage. Between stages frames are bytes, as in a file without
loss; the release reads back what it has compressed.

Shape letters: T frames, H W pixels, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from inference.arguments import check_size
from inference.interpolation import MAX_KEY_FRAMES, num_frames_of
from inference.memory import Machine, Models
from inference.pipeline import StepCallback, VideoPipeline
from inference.schedulers import SchedulerName
from inference.text_to_video import MAX_FRAMES
from inference.tiles import Tiling
from inference.video_file import Encoding, Video, check_suffix, to_bytes, write_video
from training.models.schedule import Stage

ORDER: tuple[Stage, ...] = ("base", "interpolation", "super_resolution")
MAX_SEEDS = 2**63  # of torch's generators, which take them as signed numbers of 64 bits
MAX_NOISE_LEVEL = 350
OnStep = Callable[[Stage, int, int], None]
"""Called when a stage begins and after each step: the stage, how many steps are done, of how many."""


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
class Request:
    """One video to make."""

    prompt: str
    """What to show."""
    seed: int = 0
    """Decides the video, together with the prompt and the settings."""
    given: Video | None = None
    """The video to start from, where the base stage is left out."""


def check_request(request: Request, config: CascadeConfig) -> None:
    """Raise ValueError where a given video and the stages do not go together."""
    if (request.given is None) != ("base" in config.stages):
        raise ValueError(
            "a video must be given where the base stage is left out, and only there; got stages "
            f"{', '.join(config.stages)} {'without' if request.given is None else 'and'} a video"
        )
    if request.given is None:
        return
    frames, height, width, _ = request.given.frames_THWC.shape
    if "interpolation" in config.stages:
        most = MAX_KEY_FRAMES if config.window_overlap is None else frames
        if not 2 <= frames <= most:
            raise ValueError(
                f"a video must have 2 to {most} frames to be interpolated without window_overlap, "
                f"got {frames}"
            )
    else:
        check_size(height, width)


def check_noise(config: CascadeConfig, machine: Machine) -> None:
    """Raise ValueError where noise is to come from a device that the networks are not on."""
    if config.noise_from == "cuda" and not machine.device.startswith("cuda"):
        raise ValueError(f"noise_from cuda needs the networks there, got {machine.device}")


def cascade(
    request: Request,
    config: CascadeConfig,
    models: Models,
    *,
    on_step: OnStep | None = None,
    on_stage: Callable[[Stage, Video], None] | None = None,
) -> Video:
    """Run the stages one after the other; each is out of memory before the next comes in.

    Args:
        request: What to make.
        config: How.
        models: Of every stage in the config.
        on_step: Told of progress.
        on_stage: Given each stage's video, the last one's too.

    Returns:
        The last stage's video; its description says all that made it.

    Raises:
        ValueError: The request does not fit the stages; nothing has been computed.
    """
    check_request(request, config)
    check_noise(config, models.machine)
    video = request.given
    for stage in config.stages:
        with models.using(stage, config.settings(stage).scheduler) as pipeline:
            video = _run_stage(pipeline, request, config, video, on_step)
        description = _description(request, config, models, upto=stage)
        video = Video(frames_THWC=video.frames_THWC, fps=video.fps, description=description)
        if on_stage is not None:
            on_stage(stage, video)
    assert video is not None  # there is at least one stage
    return video


def _run_stage(
    pipeline: VideoPipeline,
    request: Request,
    config: CascadeConfig,
    before: Video | None,
    on_step: OnStep | None,
) -> Video:
    stage = pipeline.stage
    settings = config.settings(stage)
    seed = request.seed if settings.seed is None else settings.seed
    arguments: dict[str, Any] = {
        "num_inference_steps": settings.steps,
        "negative_prompt": settings.negative,
        "generator": torch.Generator(config.noise_from).manual_seed(seed),
        "output_type": "latent",
    }
    if settings.guidance is not None:
        arguments["guidance_scale"] = settings.guidance
    arguments |= _own_arguments(stage, config, before)
    if on_step is not None:
        total = settings.steps * _num_loops(stage, config, before)
        on_step(stage, 0, total)
        arguments["callback_on_step_end"] = _counting(stage, total, on_step)
    latents = pipeline(request.prompt, **arguments).frames
    frames = _frames(pipeline, latents)
    return Video(frames_THWC=frames, fps=_fps(stage, settings, before))


def _own_arguments(stage: Stage, config: CascadeConfig, before: Video | None) -> dict[str, Any]:
    size = {"height": config.height, "width": config.width}
    overlap = config.window_overlap
    if stage == "base":
        windows = None if overlap is None else Tiling(frames=MAX_KEY_FRAMES, frame_overlap=overlap)
        return size | {"num_frames": config.num_frames, "windows": windows}
    assert before is not None  # checked by check_request, or made by the base stage
    if stage == "interpolation":
        windows = None
        if overlap is not None:
            frames = num_frames_of(MAX_KEY_FRAMES)
            windows = Tiling(frames=frames, frame_overlap=min(4 * overlap, frames - 1))
        return size | {"video": before.frames_THWC, "windows": windows}
    return {
        "video": before.frames_THWC,
        "noise_level": config.noise_level,
        "tiling": config.tiling,
    }


def _num_loops(stage: Stage, config: CascadeConfig, before: Video | None) -> int:
    """How often the loop over times runs: once, or once for each independent piece."""
    tiling = config.tiling
    if stage != "super_resolution" or before is None or tiling.frame_overlap:
        return 1
    if tiling.height is not None or tiling.width is not None:
        return 1
    return len(tiling.tiles(*before.frames_THWC.shape[:3]))


def _counting(stage: Stage, total: int, on_step: OnStep) -> StepCallback:
    done = 0

    def count(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal done
        done += 1
        on_step(stage, done, total)
        return tensors

    return count


def _frames(pipeline: VideoPipeline, latents: torch.Tensor) -> NDArray[np.uint8]:
    groups = [
        to_bytes(group[0].permute(1, 2, 3, 0).numpy(), rounds=pipeline.rounds)
        for group in pipeline.decoded(latents)
    ]
    pipeline.maybe_free_model_hooks()
    return np.concatenate(groups)


def _fps(stage: Stage, settings: StageSettings, before: Video | None) -> float:
    if settings.fps is not None:
        return settings.fps
    if stage == "super_resolution" and before is not None:
        return before.fps
    return 8.0 if stage == "base" else 24.0


def _description(
    request: Request, config: CascadeConfig, models: Models, *, upto: Stage
) -> Mapping[str, Any]:
    stages = config.stages[: config.stages.index(upto) + 1]
    given = request.given
    return {
        "made_by": "lavie",
        "prompt": request.prompt,
        "seed": request.seed,
        "stages": list(stages),
        "settings": asdict(config),
        "machine": asdict(models.machine),
        "weights_sha256": {stage: models.digest(stage) for stage in stages},
        "adjustment": models.adjustment,
        "given": given
        and {
            "frames": len(given.frames_THWC),
            "fps": given.fps,
            "description": given.description,
        },
    }


def sample_to_file(
    request: Request,
    config: CascadeConfig,
    models: Models,
    out: Path,
    *,
    encoding: Encoding | None = None,
    on_step: OnStep | None = None,
) -> list[Path]:
    """Run the cascade and write every stage's video.

    Args:
        request: What to make.
        config: How.
        models: Of every stage.
        out: The last stage's file; the others' have the stage in their names beside it.
        encoding: Of mp4 files.
        on_step: Told of progress.

    Returns:
        The files, the last stage's at the end.

    Raises:
        ValueError: The request does not fit, or the suffix is unknown; nothing has been computed.
    """
    check_suffix(out)
    files = stage_files(out, config.stages)

    def write(stage: Stage, video: Video) -> None:
        write_video(
            files[stage],
            video.frames_THWC,
            fps=video.fps,
            description=video.description,
            encoding=encoding,
        )

    cascade(request, config, models, on_step=on_step, on_stage=write)
    return list(files.values())


def stage_files(out: Path, stages: Sequence[Stage]) -> dict[Stage, Path]:
    """``panda.mp4`` for the last stage, ``panda-base.mp4`` and so on for those before."""
    return {
        stage: out
        if stage == stages[-1]
        else out.with_name(f"{out.stem}-{stage.replace('_', '-')}{out.suffix}")
        for stage in stages
    }
