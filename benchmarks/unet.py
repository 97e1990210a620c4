"""Time, peak memory and model FLOP/s utilisation of the three networks.

    python -m benchmarks.unet                             all networks, tiny, on the CPU
    python -m benchmarks.unet --size full --device cuda --dtype bf16 --compile

FLOP are counted from the operations themselves (`torch.utils.flop_counter`), a multiply-add as two.
Utilisation is against what a large square matmul reaches on the same device in the same dtype, not
against a data sheet. Peak memory is the allocator's on CUDA and the process's resident set on a
CPU, where it only ever grows: measure one network a process there. On a CPU one thread's own time
is taken, so that other work on the machine does not count.
"""

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.models.released import CONFIGS
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FULL_SHAPES = {
    "base": (16, 40, 64),  # 16 frames of 320x512
    "interpolation": (61, 40, 64),  # 61 frames of 320x512
    "super_resolution": (8, 320, 512),  # a chunk of 8 frames to 1280x2048
}
TINY_SHAPE = (4, 8, 8)
TEXT_TOKENS = 77
MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
HEADER = ("network", "pass", "shape", "TFLOP", "s", "TFLOP/s", "of matmul", "peak GiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure."""

    networks: tuple[Literal["base", "interpolation", "super_resolution"], ...] = (
        "base",
        "interpolation",
        "super_resolution",
    )
    """Networks to measure, one after the other."""
    size: Literal["tiny", "full"] = "tiny"
    """Released width, or a sixteenth of the parameters and less."""
    shape: tuple[int, int, int] | None = None
    """Frames, height and width of the latents; by default LaVie's working size, or 4 8 8."""
    passes: tuple[Literal["forward", "forward+backward"], ...] = ("forward", "forward+backward")
    """Which passes to measure."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the weights and activations."""
    compile: bool = False
    """Compile the network first (not part of the time)."""
    channels_last: bool = False
    """Store convolutions channels-last."""
    checkpointing: bool = False
    """Compute activations again in the backward pass."""
    threads: int = 1
    """CPU threads; with more than one, time is that of the clock on the wall."""
    repeats: int = 3
    """Timed runs after a first one; the best counts."""


def network(benchmark: Benchmark, name: str) -> UNet:
    """The network to measure, weights random."""
    config: UNetConfig = CONFIGS[name]()
    if benchmark.size == "tiny":
        widths = tuple(width // 4 for width in config.block_out_channels)
        config = replace(
            config, block_out_channels=widths, num_attention_heads=2, norm_num_groups=16
        )
    with torch.device(benchmark.device):
        net = UNet(config).to(DTYPES[benchmark.dtype])
    net.set_activation_checkpointing(benchmark.checkpointing)
    if benchmark.channels_last:
        net.use_channels_last()
    return net


def arguments(net: UNet, shape: tuple[int, int, int], device: str) -> dict[str, Tensor]:
    """One sample of random inputs."""
    config, dtype = net.config, net.conv_in.weight.dtype
    given = {
        "sample_BCTHW": torch.randn(1, config.in_channels, *shape, device=device, dtype=dtype),
        "timestep_B": torch.tensor([500], device=device),
        "text_BLD": torch.randn(
            1, TEXT_TOKENS, config.cross_attention_dim, device=device, dtype=dtype
        ),
    }
    if config.takes_noise_level:
        given["noise_level_B"] = torch.tensor([50], device=device)
    return given


def best_time_s(run: Callable[[], object], repeats: int, device: str) -> float:
    """Shortest of several runs after one that warms up."""
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        started = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[1:])


def matmul_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matmul: what this device can be expected to reach."""
    size = MATMUL_SIZE[device]
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / best_time_s(lambda: a @ a, 5, device)


def peak_gib(device: str) -> float:
    """Peak memory so far: the allocator's on CUDA, the resident set on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**20


def measure(benchmark: Benchmark, name: str, reachable: float) -> list[tuple[str, ...]]:
    """A row for each pass of one network."""
    device = benchmark.device
    tiny_or_full = TINY_SHAPE if benchmark.size == "tiny" else FULL_SHAPES[name]
    shape = benchmark.shape or tiny_or_full
    net = network(benchmark, name)
    given = arguments(net, shape, device)

    def forward() -> None:
        with torch.no_grad():
            net(**given)

    def forward_backward() -> None:
        net.zero_grad(set_to_none=True)
        net(**given).float().square().mean().backward()

    runs = {"forward": forward, "forward+backward": forward_backward}
    rows: list[tuple[str, ...]] = []
    for pass_name in benchmark.passes:
        run = runs[pass_name]
        with FlopCounterMode(display=False) as counter:
            run()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if benchmark.compile:
            net.compile()
        seconds = best_time_s(run, benchmark.repeats, device)
        flop = counter.get_total_flops()
        figures = (f"{flop / 1e12:.3f}", f"{seconds:.3f}", f"{flop / seconds / 1e12:.3f}")
        share = f"{flop / seconds / reachable:.0%}"
        size = "x".join(map(str, shape))
        rows.append((name, pass_name, size, *figures, share, f"{peak_gib(device):.2f}"))
    return rows


def main(benchmark: Benchmark) -> None:
    """Measure and print a Markdown table."""
    torch.set_num_threads(benchmark.threads)
    console = Console(width=200)
    reachable = matmul_flops(benchmark.device, DTYPES[benchmark.dtype])
    where = torch.cuda.get_device_name() if benchmark.device == "cuda" else platform.machine()
    console.print(
        f"{benchmark.size}, {benchmark.dtype} on {where}, torch {torch.__version__}, "
        f"{benchmark.threads} threads; a matmul reaches {reachable / 1e12:.3f} TFLOP/s\n",
        highlight=False,
    )
    console.print(f"| {' | '.join(HEADER)} |\n| {' | '.join('---' for _ in HEADER)} |")
    for name in benchmark.networks:
        for row in measure(benchmark, name, reachable):
            console.print(f"| {' | '.join(row)} |", highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
