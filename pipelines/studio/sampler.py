"""The cascade as the page asks for it: models that wait between two samples, LoRAs by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from curation.errors import LavieError
from inference.cascade import Request as CascadeRequest
from inference.cascade import cascade
from inference.interpolation import num_frames_of
from inference.memory import Machine, Models
from inference.personalised import Personalised
from inference.settings import ORDER, CascadeConfig
from inference.super_resolution import SCALE
from inference.video_file import write_video
from inference.weights import Weights
from pipelines.studio.samples import OnStep, Request

if TYPE_CHECKING:
    from inference.pipeline import VideoPipeline
    from training.models.schedule import Stage


class CascadeSampler:
    """Samples on one machine, one video at a time.

    Args:
        weights: Of the stages that can be asked for, base among them.
        machine: Where they run.
        config: Sizes, tiles and whatever else the page does not ask for.
        loras: Name -> file, as of `lora_files`.
        label: What to call the weights.
    """

    def __init__(
        self,
        weights: Mapping[Stage, Weights],
        machine: Machine,
        *,
        config: CascadeConfig,
        loras: Mapping[str, Path],
        label: str,
    ) -> None:
        if "base" not in weights:
            raise ValueError(f"the page needs weights of the base stage, got {sorted(weights)}")
        self.stages: dict[str, str] = {
            stage: _gives(stage, config) for stage in ORDER if stage in weights
        }
        self.loras = tuple(loras)
        self.label = f"{label}, {machine.dtype} on {machine.device}"
        self._files = dict(loras)
        self._config = config
        self._wanted: Mapping[str, float] = {}
        self._base: Personalised | None = None
        self._models = Models(weights, machine, keep=True, adjust=self._adjust)

    def sample(self, request: Request, path: Path, step: OnStep) -> None:
        """See `pipelines.studio.samples.Sampler`."""
        config = self._config_of(request)
        unknown = sorted(set(request.loras) - set(self._files))
        if unknown:
            raise ValueError(f"loras must be some of {self.loras}, got {unknown}")
        self._wanted = request.loras
        if self._base is not None:
            self._personalise(self._base)
        asked = CascadeRequest(prompt=request.prompt, seed=request.seed)
        try:
            video = cascade(asked, config, self._models, on_step=step)
        except torch.OutOfMemoryError as error:
            raise LavieError(f"the GPU's memory is too small, try --low-memory: {error}") from error
        loras = {
            name: {"weight": weight, "sha256": _sha256(self._files[name])}
            for name, weight in request.loras.items()
        }
        description: dict[str, Any] = {**(video.description or {}), "loras": loras}
        write_video(path, video.frames_THWC, fps=video.fps, description=description)

    def _config_of(self, request: Request) -> CascadeConfig:
        stages = tuple(stage for stage in ORDER if stage in request.stages)
        steps = {
            stage: replace(self._config.settings(stage), steps=request.num_steps) for stage in ORDER
        }
        base = replace(
            steps["base"], guidance=request.guidance_scale, negative=request.negative_prompt or None
        )
        return replace(
            self._config,
            stages=stages,
            base=base,
            interpolation=steps["interpolation"]
            if "interpolation" in stages
            else self._config.interpolation,
            super_resolution=steps["super_resolution"],
        )

    def _adjust(self, pipeline: VideoPipeline) -> None:
        if isinstance(pipeline, Personalised):
            self._base = pipeline
            self._personalise(pipeline)

    def _personalise(self, pipeline: Personalised) -> None:
        if not self._wanted:
            pipeline.unload_lora_weights()
            return
        for name in self._wanted:
            if name not in pipeline.lora_weights:
                pipeline.load_lora_weights(self._files[name], name)
        pipeline.set_adapters(list(self._wanted), list(self._wanted.values()))


def _gives(stage: Stage, config: CascadeConfig) -> str:
    name = stage.replace("_", "-")
    if stage == "interpolation":
        return f"{name}: {num_frames_of(config.num_frames)} frames"
    scale = SCALE if stage == "super_resolution" else 1
    return f"{name}: {scale * config.width}x{scale * config.height}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lora_files(folder: Path) -> dict[str, Path]:
    """The LoRAs of a folder by name: ``.safetensors`` files, and folders with diffusers' or PEFT's in them.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Two have the same name.
    """
    from inference.lora_file import weights_file

    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of LoRAs at {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        file = weights_file(path)
        if not file.is_file() or file.suffix != ".safetensors":
            continue
        name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in path.stem)
        if name in found:
            raise ValueError(f"two LoRAs of {folder} are called {name}: {found[name]} and {file}")
        found[name] = file
    return found
