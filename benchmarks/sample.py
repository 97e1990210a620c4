"""Seconds, peak memory, TFLOP and utilisation of each stage of sampling, decoding included.

    python -m benchmarks.sample                                     tiny, on the CPU
    python -m benchmarks.sample --size full --device cuda --compile

The pipelines themselves are timed, with random weights: speed does not depend on their values. FLOP and
the matmul that utilisation is measured against are those of `benchmarks.unet`; FLOP are counted over two
steps, so that what comes before the loop counts too, and scaled to all.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.unet import matmul_flops, peak_gib
from curation.weights.torchvision_shim import ensure_torchvision
from inference.memory import PIPELINES, Machine
from inference.pipeline import VideoPipeline
from inference.settings import SchedulerName
from inference.tiles import Tiling
from inference.tiny import tiny_model
from training.models.autoencoder import Autoencoder
from training.models.exported import ExportedModel
from training.models.released import CONFIGS
from training.models.schedule import Objective, Stage
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HEADER = ("stage", "frames", "steps", "TFLOP", "s", "s decode", "TFLOP/s", "of matmul", "peak GiB")
SIZES = {"tiny": (4, 32, 32), "full": (16, 320, 512)}
"""Base frames, height and width; interpolation makes 4 T - 3 of them, super-resolution enlarges T."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure."""

    stages: tuple[Stage, ...] = ("base", "interpolation", "super_resolution")
    """Stages, one after the other."""
    size: Literal["tiny", "full"] = "tiny"
    """Tiny untrained networks, or the released sizes with random weights."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of networks and activations."""
    steps: int = 50
    """Steps to report; those that are timed are fewer, see ``timed_steps``."""
    timed_steps: int = 5
    """Steps that are run and timed; seconds are scaled to ``steps``."""
    scheduler: SchedulerName | None = None
    """Sampler of every stage; the release's by default."""
    compile: bool = False
    """Compile the networks (not part of the time)."""
    reuse_features: int = 1
    """See `inference.memory.Machine`; more timed steps tell its gain better."""
    low_memory: bool = False
    """See `inference.memory.Machine`."""
    guide_in_one_call: bool = False
    """Put both prompts of guidance through the super-resolution network together."""
    tiling: Tiling = Tiling(frame_overlap=0)  # noqa: RUF009 - frozen
    """Of super-resolution; the release's independent pieces by default."""
    threads: int = 1
    """CPU threads."""


def full_model(stage: Stage, device: str) -> ExportedModel:
    """A model of the released size with random weights."""
    ensure_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    enlarges = stage == "super_resolution"
    objective = Objective.of(stage)
    widths = (128, 256, 512) if enlarges else (128, 256, 512, 512)
    with torch.device(device):
        net = UNet(CONFIGS[stage]()).eval()
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            scaling_factor=objective.latent_scale,
        )
        tower = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=1024 if enlarges else 768,
                intermediate_size=4096 if enlarges else 3072,
                num_hidden_layers=23 if enlarges else 12,
                num_attention_heads=16 if enlarges else 12,
            )
        )
    tokenizer = tiny_model(stage).text_encoder
    assert tokenizer is not None
    return ExportedModel(
        net=net,
        objective=objective,
        autoencoder=Autoencoder(vae),
        text_encoder=TextEncoder(tower, tokenizer.tokenizer),
    )


def pipeline_of(benchmark: Benchmark, stage: Stage) -> VideoPipeline:
    """The pipeline to measure."""
    tiny = benchmark.size == "tiny"
    model = tiny_model(stage) if tiny else full_model(stage, benchmark.device)
    pipeline = PIPELINES[stage].from_model(model, scheduler=benchmark.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    machine = Machine(
        device=benchmark.device,
        dtype=benchmark.dtype,
        low_memory=benchmark.low_memory,
        reuse_features=benchmark.reuse_features,
    )
    machine.prepare(pipeline)
    if benchmark.guide_in_one_call:
        pipeline.disable_guidance_splitting()
    return pipeline


def runs(benchmark: Benchmark, pipeline: VideoPipeline) -> Callable[[int], torch.Tensor]:
    """Sample so many steps; returns the latents."""
    frames, height, width = SIZES[benchmark.size]
    given = np.zeros((frames, height, width, 3), np.uint8)
    more: dict[str, Any] = {
        "base": {"height": height, "width": width, "num_frames": frames},
        "interpolation": {"video": given},
        "super_resolution": {"video": given, "tiling": benchmark.tiling},
    }[pipeline.stage]

    def run(steps: int) -> torch.Tensor:
        out = pipeline("a panda", num_inference_steps=steps, output_type="latent", **more)
        latents: torch.Tensor = out.frames
        return latents

    return run


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of one run; on the CPU those of this process alone."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure(benchmark: Benchmark, stage: Stage, reachable: float) -> tuple[str, ...]:
    """One row of the table."""
    pipeline, device = pipeline_of(benchmark, stage), benchmark.device
    run = runs(benchmark, pipeline)
    with FlopCounterMode(display=False) as counter:
        latents = run(2)
    flop = counter.get_total_flops() / 2 * benchmark.steps
    with FlopCounterMode(display=False) as counter:
        for _ in pipeline.decoded(latents[:, :, :1]):
            pass
    flop += counter.get_total_flops() * latents.shape[2]
    if benchmark.compile:
        pipeline.enable_compilation()
        run(2)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    denoise_s = timed(lambda: run(benchmark.timed_steps), device)
    denoise_s *= benchmark.steps / benchmark.timed_steps
    decode_s = timed(lambda: list(pipeline.decoded(latents)), device)
    speed = flop / (denoise_s + decode_s)
    figures = (f"{flop / 1e12:.3f}", f"{denoise_s + decode_s:.2f}", f"{decode_s:.2f}")
    share = f"{speed / reachable:.0%}"
    size = "x".join(map(str, latents.shape[2:]))
    return (
        stage,
        size,
        str(benchmark.steps),
        *figures,
        f"{speed / 1e12:.3f}",
        share,
        f"{peak_gib(device):.2f}",
    )


def main(benchmark: Benchmark) -> None:
    """Measure and print a Markdown table."""
    torch.set_num_threads(benchmark.threads)
    console = Console(width=200)
    reachable = matmul_flops(benchmark.device, DTYPES[benchmark.dtype])
    console.print(
        f"{benchmark.size}, {benchmark.dtype} on {benchmark.device}, torch {torch.__version__}; "
        f"a matmul reaches {reachable / 1e12:.3f} TFLOP/s\n",
        highlight=False,
    )
    console.print(f"| {' | '.join(HEADER)} |\n| {' | '.join('---' for _ in HEADER)} |")
    for stage in benchmark.stages:
        row = measure(benchmark, stage, reachable)
        console.print(f"| {' | '.join(row)} |", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
