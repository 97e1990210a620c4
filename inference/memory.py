"""Which machine a pipeline runs on, and how much of its memory it may take."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from curation.errors import LavieError
from inference.interpolation import InterpolationPipeline
from inference.pipeline import VideoPipeline
from inference.settings import SchedulerName
from inference.super_resolution import SuperResolutionPipeline
from inference.text_to_video import LaViePipeline
from inference.weights import Weights
from training.models.schedule import Stage

PIPELINES: dict[Stage, type[VideoPipeline]] = {
    "base": LaViePipeline,
    "interpolation": InterpolationPipeline,
    "super_resolution": SuperResolutionPipeline,
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the networks run and in which numbers."""

    device: str = "cpu"
    """A torch device: cpu, cuda, cuda:1."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of networks and activations; the super-resolution autoencoder keeps fp32."""
    low_memory: bool = False
    """Keep models that do not run on the CPU, put single frames in tiles through the autoencoder
    and the two prompts of guidance one by one through the network: slower, less than half the memory."""
    compile: bool = False
    """Compile the networks: minutes at the first step, faster from then on."""
    reuse_features: int = 1
    """Steps that one whole call of a network serves; 3 is about twice as fast, at a loss of detail."""

    def __post_init__(self) -> None:
        """Raise ValueError for a device or dtype that torch does not have here."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {tuple(DTYPES)}, got {self.dtype!r}")
        if self.reuse_features < 1:
            raise ValueError(f"reuse_features must be at least 1, got {self.reuse_features}")
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise ValueError(f"device must be a torch device, got {self.device!r}") from error
        if kind not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu, cuda or cuda:1, got {self.device!r}")
        seen = torch.cuda.device_count()
        if kind == "cuda" and (torch.device(self.device).index or 0) >= seen:
            raise ValueError(f"device {self.device} was asked for, but torch sees {seen} of CUDA")

    def prepare(self, pipeline: VideoPipeline) -> None:
        """Cast and place a pipeline, and bound its memory."""
        pipeline.to(DTYPES[self.dtype])
        if self.low_memory:
            pipeline.enable_vae_slicing()
            pipeline.enable_vae_tiling()
            pipeline.enable_guidance_splitting()
        if self.low_memory and torch.device(self.device).type != "cpu":
            pipeline.enable_model_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)
        pipeline.enable_feature_reuse(self.reuse_features)
        if self.compile:
            pipeline.enable_compilation()


class Models:
    """The pipelines of the stages, of which one at a time takes memory.

    Args:
        weights: Of each stage.
        machine: Where they run.
        keep: Whether a pipeline that has run waits on the CPU for the next video, or is forgotten.
        adjust: Called with each pipeline after loading, before it is cast: LoRAs and the like.
        adjustment: What that does, in plain values, for the description of every video.
    """

    def __init__(
        self,
        weights: Mapping[Stage, Weights],
        machine: Machine,
        *,
        keep: bool = False,
        adjust: Callable[[VideoPipeline], None] | None = None,
        adjustment: Mapping[str, Any] | None = None,
    ) -> None:
        self.adjustment = dict(adjustment or {})
        self.weights = dict(weights)
        self.machine = machine
        self._keep = keep
        self._adjust = adjust
        self._waiting: dict[tuple[Stage, SchedulerName | None], VideoPipeline] = {}
        self._digests: dict[Stage, str] = {}

    def digest(self, stage: Stage) -> str:
        """Digest of a stage's weights, measured once."""
        if stage not in self._digests:
            self._digests[stage] = self.weights[stage].digest()
        return self._digests[stage]

    def _loaded(self, stage: Stage, scheduler: SchedulerName | None) -> VideoPipeline:
        try:
            model = self.weights[stage].load()
            return PIPELINES[stage].from_model(model, scheduler=scheduler)
        except (ValueError, FileNotFoundError) as error:  # torn, gone, or without its companions
            raise LavieError(f"the weights of stage {stage} cannot be used: {error}") from error

    @contextmanager
    def using(
        self, stage: Stage, scheduler: SchedulerName | None = None
    ) -> Iterator[VideoPipeline]:
        """The pipeline of a stage, whose memory is free again afterwards."""
        pipeline = self._waiting.pop((stage, scheduler), None)
        if pipeline is None:
            pipeline = self._loaded(stage, scheduler)
            pipeline.set_progress_bar_config(disable=True)
            if self._adjust is not None:
                self._adjust(pipeline)
            self.machine.prepare(pipeline)
        elif not self.machine.low_memory:
            pipeline.to(self.machine.device)
        try:
            yield pipeline
        finally:
            if self._keep:
                if not self.machine.low_memory:
                    pipeline.to("cpu", silence_dtype_warnings=True)
                self._waiting[stage, scheduler] = pipeline
            else:
                pipeline.remove_all_hooks()
            del pipeline
            gc.collect()  # hooks and compiled graphs hold circles
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
