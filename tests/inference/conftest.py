"""Tiny pipelines and given frames."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from inference.interpolation import InterpolationPipeline
from inference.super_resolution import SuperResolutionPipeline
from inference.text_to_video import LaViePipeline
from inference.tiny import tiny_model

PIPELINES = {
    "base": LaViePipeline,
    "interpolation": InterpolationPipeline,
    "super_resolution": SuperResolutionPipeline,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_pipeline() -> Callable[..., Any]:
    """``tiny_pipeline("base", scheduler="ddim")``: a fresh pipeline of tiny untrained networks."""

    def build(stage: str, **options: Any) -> Any:
        scheduler = options.pop("scheduler", None)
        model = tiny_model(stage, **options)
        pipeline = PIPELINES[stage].from_model(model, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return build


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """``seeded(3)``: a new generator."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def clip_THWC() -> Callable[..., np.ndarray]:
    """``clip_THWC(frames=4, size=(16, 24))``: smooth moving colours, uint8."""

    def draw(*, frames: int = 4, size: tuple[int, int] = (16, 24)) -> np.ndarray:
        t, y, x = np.meshgrid(*(np.arange(n) for n in (frames, *size)), indexing="ij")
        waves = [np.sin(0.3 * x + 0.5 * t), np.sin(0.2 * y - 0.4 * t), np.cos(0.1 * (x + y + t))]
        return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)

    return draw


@pytest.fixture
def recorded() -> Callable[..., tuple[Any, list[torch.Tensor], list[int]]]:
    """``recorded(pipeline, *args, **kwargs)``: the output, the latents after each step, the times."""

    def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        latents: list[torch.Tensor] = []
        times: list[float] = []

        def note(_pipe: Any, _step: int, time: torch.Tensor, tensors: dict[str, Any]) -> Any:
            latents.append(tensors["latents"].clone())
            times.append(float(time))
            return tensors

        output = pipeline(*args, callback_on_step_end=note, **kwargs)
        return output, latents, times

    return call
