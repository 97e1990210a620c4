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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.arguments import check_size
from inference.interpolation import num_frames_of
from inference.memory import Machine, Models
from inference.pipeline import StepCallback, VideoPipeline
from inference.settings import MAX_KEY_FRAMES, CascadeConfig, StageSettings
from inference.tiles import Tiling
from inference.video_file import Encoding, Video, check_suffix, to_bytes, write_video
from training.models.schedule import Stage

OnStep = Callable[[Stage, int, int], None]
"""Called when a stage begins and after each step: the stage, how many steps are done, of how many."""


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


def check_reuse(request: Request, config: CascadeConfig, machine: Machine) -> None:
    """Raise ValueError where features would be reused across tiles that blend into each other."""
    if machine.reuse_features <= 1 or "super_resolution" not in config.stages:
        return
    frames, height, width = config.num_frames, config.height, config.width
    if request.given is not None:
        frames, height, width, _ = request.given.frames_THWC.shape
    if "interpolation" in config.stages:
        frames, height, width = num_frames_of(frames), config.height, config.width
    if config.tiling.blends(frames, height, width):
        raise ValueError(
            f"features are kept for each tile, and {frames} frames of {height}x{width} are several that "
            "overlap: take tiling.frame_overlap 0 and whole frames, or reuse_features 1"
        )


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
    check_reuse(request, config, models.machine)
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
