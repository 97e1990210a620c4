"""Time, clips a second, peak memory and utilisation of one optimizer step, from latents.

    python -m benchmarks.train_step                                        tiny, on the CPU
    python -m benchmarks.train_step --size full --device cuda --autocast bf16 --compile

The step is the trainer's own: feed, forward, backward, clipping, fused AdamW, fp32 average. Its
batch is drawn on the spot, moments of latents and text states as `lavie encode` gives them, so that
no disk is measured. FLOP are counted from the operations (forward and backward, a multiply-add as
two; what checkpointing repeats is not counted). Utilisation is against what a large square matmul
reaches on the device in the precision of the passes.
"""

import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.unet import DTYPES, matmul_flops, peak_gib
from training.data.batch import Batch, Sample, stack
from training.distributed import Ranks
from training.learner import Learner
from training.metrics import FlopCounts
from training.models.released import CONFIGS
from training.models.tiny import tiny_config
from training.models.unet import UNet
from training.presets import paper
from training.run_config import Phase, TrainConfig
from training.stages import Companions, Stage, stage_of

TEXT_TOKENS = 77
WARM_UP = 2  # steps; the first compiles and makes the moments of AdamW


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure."""

    stage: Literal["base", "interpolation"] = "base"
    """Which network; super-resolution trains from pixels."""
    size: Literal["tiny", "full"] = "tiny"
    """Released width, or the tiny preset's."""
    size_px: tuple[int, int] = (320, 512)
    """Height and width of the frames."""
    num_frames: int = 16
    """T."""
    num_images: int = 0
    """M; the paper's base has 4."""
    batch_sizes: tuple[int, ...] = (1,)
    """Micro-batches to measure, one step each."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    autocast: Literal["off", "bf16"] = "off"
    """Precision of the passes."""
    compile: bool = False
    """Compile the network first (not part of the time)."""
    channels_last: bool = False
    """Store convolutions channels-last."""
    checkpointing: bool = False
    """Compute activations again in the backward pass."""
    steps: int = 5
    """Timed steps; the median counts."""
    threads: int = 2
    """CPU threads."""


def make_config(benchmark: Benchmark) -> TrainConfig:
    """The paper's run with what is measured changed."""
    config = paper(benchmark.stage)
    return replace(
        config,
        phases=(Phase(sizes_px=(benchmark.size_px,)),),
        sample=replace(
            config.sample,
            num_frames=benchmark.num_frames,
            images_per_video=benchmark.num_images,
        ),
        scale=replace(
            config.scale,
            autocast=benchmark.autocast,
            compile=benchmark.compile,
            channels_last=benchmark.channels_last,
            checkpoint_activations=benchmark.checkpointing,
        ),
    )


def make_batch(config: TrainConfig, stage: Stage, text_width: int, size: int) -> Batch:
    """Encoded samples, drawn."""
    frames, images = config.sample.num_frames, config.sample.images_per_video
    height, width = (pixels // 8 for pixels in config.phases[0].sizes_px[0])
    samples = [
        Sample(
            step=0,
            position=position,
            size_px=config.phases[0].sizes_px[0],
            clip_id="drawn",
            image_ids=(),
            captions=("",) * (1 + images),
            mean_CFhw=torch.randn(4, frames + images, height, width),
            logvar_CFhw=torch.full((4, frames + images, height, width), -10.0),
            text_KLD=torch.randn(1 + images, TEXT_TOKENS, text_width),
            num_video_frames=frames,
            num_images=images,
        )
        for position in range(size)
    ]
    draws = [stage.draw(0, sample) for sample in samples]
    return stack(samples, draws, kind="joint" if images else "video", pool="drawn")


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(benchmark: Benchmark, learner: Learner, batch: Batch) -> tuple[list[float], float]:
    """Seconds of each timed step, and FLOP of one."""
    device = learner.ranks.device
    on_device = batch.to(device)
    times_s = []
    for step in range(WARM_UP + benchmark.steps):
        wait(device)
        begin_s = time.perf_counter()
        loss, _, feed = learner.accumulate(on_device, num_micro_batches=1, last=True)
        learner.update(loss, 1e-5)
        wait(device)
        if step >= WARM_UP:
            times_s.append(time.perf_counter() - begin_s)
    flop = FlopCounts(learner.architecture, learner.trainable).of(feed)
    return times_s, flop


def main(benchmark: Benchmark) -> None:
    """Print a row for each batch size."""
    torch.set_num_threads(benchmark.threads)
    device = torch.device(benchmark.device)
    config = make_config(benchmark)
    stage = stage_of(config)
    torch.manual_seed(0)
    architecture = (
        CONFIGS[benchmark.stage]() if benchmark.size == "full" else tiny_config(benchmark.stage)
    )
    learner = Learner(
        config, stage, UNet(architecture), Companions(None, None), Ranks(0, 1, device)
    )
    learner.begin_phase(0)
    dtype = "bf16" if benchmark.autocast == "bf16" else "fp32"
    peak = matmul_flops(benchmark.device, DTYPES[dtype])
    height, width = benchmark.size_px
    shape = f"{benchmark.num_frames}+{benchmark.num_images} x {height} x {width}"
    table = Table(title=f"{benchmark.stage} {benchmark.size}, {shape}, {dtype}, {device}")
    for header in ("batch", "s a step", "clips/s", "TFLOP", "TFLOP/s", "of matmul", "peak GiB"):
        table.add_column(header, justify="right")
    for size in benchmark.batch_sizes:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        batch = make_batch(config, stage, architecture.cross_attention_dim, size)
        times_s, flop = measure(benchmark, learner, batch)
        seconds = sorted(times_s)[len(times_s) // 2]
        table.add_row(
            str(size),
            f"{seconds:.3f}",
            f"{size / seconds:.2f}",
            f"{flop / 1e12:.3f}",
            f"{flop / seconds / 1e12:.3f}",
            f"{flop / seconds / peak:.0%}",
            f"{peak_gib(device.type):.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
