"""Peak memory of sampling at full size, worked out without a GPU.

    python -m benchmarks.sample_memory

Every operation of one step is run on the meta device, which computes shapes and no values, and the
bytes of all live tensors are added up: weights, activations, what waits. That is what an allocator
without waste would reach. Not in it: workspaces of convolutions and kernels, fragments, and the CUDA
context (together one to three GB). Attention is counted as fused, as it runs on CUDA.
"""

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.released import CONFIGS
from training.models.unet import UNet

HALF, SINGLE = torch.float16, torch.float32
TEXT_TOKENS = 77
WAITING = {"base": (123, 84), "interpolation": (123, 84), "super_resolution": (340, 55)}
"""Millions of parameters of text tower and autoencoder, on the GPU too unless offloaded."""


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of live tensors, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage while it lives."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()

        def gone(_ref: object) -> None:
            self.live -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


class FusedAttention(TorchFunctionMode):
    """Attention that needs its result and no scores."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            q, v = args[0], args[2]
            return q.new_empty((*q.shape[:-1], v.shape[-1]))
        return func(*args, **(kwargs or {}))


def peak_gib(module: nn.Module, run: Callable[[], object]) -> float:
    """Most memory while ``run`` runs, the module's parameters included."""
    with torch.no_grad(), FusedAttention(), LiveBytes() as counted:
        for tensor in (*module.parameters(), *module.buffers()):
            counted.add(tensor)
        run()
    return counted.peak / 2**30


def denoising_gib(stage: str, shape: tuple[int, int, int], *, rows: int) -> float:
    """One call of a stage's network in fp16, for ``rows`` samples at once."""
    config = CONFIGS[stage]()
    with torch.device("meta"):
        net = UNet(replace(config)).to(HALF)
        given: dict[str, Tensor] = {
            "sample_BCTHW": torch.empty(rows, config.in_channels, *shape, dtype=HALF),
            "timestep_B": torch.empty(rows, dtype=torch.long),
            "text_BLD": torch.empty(rows, TEXT_TOKENS, config.cross_attention_dim, dtype=HALF),
        }
        if config.takes_noise_level:
            given["noise_level_B"] = torch.empty(rows, dtype=torch.long)
    return peak_gib(net, lambda: net(**given))


def autoencoder(stage: str) -> Any:
    """Stable Diffusion 1.4's or the x4 upscaler's, on the meta device."""
    ensure_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = (128, 256, 512) if stage == "super_resolution" else (128, 256, 512, 512)
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    return nn.Module.to(vae, SINGLE if stage == "super_resolution" else HALF)


def decoding_gib(stage: str, frames: int, size: tuple[int, int], *, tiled: bool) -> float:
    """Decoding some frames of latents."""
    vae = autoencoder(stage)
    if tiled:
        vae.enable_tiling()
    latents = torch.empty(frames, 4, *size, device="meta", dtype=vae.dtype)
    return peak_gib(vae, lambda: vae.decode(latents))


def waiting_gib(stage: str, *names: str) -> float:
    """Models that lie on the GPU while another runs."""
    text, vae = WAITING[stage]
    bytes_each = {"text": 2 * text, "vae": (4 if stage == "super_resolution" else 2) * vae}
    bytes_each["unet"] = 2 * (691 if stage == "super_resolution" else 909)
    return sum(bytes_each[name] for name in names) * 1e6 / 2**30


SHAPES = (
    ("base", (16, 40, 64)),
    ("interpolation", (61, 40, 64)),
    ("super_resolution", (8, 320, 512)),
    ("super_resolution", (8, 160, 256)),
)


def main() -> None:
    """Print a Markdown table."""
    logging.disable(logging.WARNING)  # diffusers warns of a cast that loses nothing
    console = Console(width=160)
    console.print("| stage | latents of a call | | network GiB | decoder GiB | peak GiB |")
    console.print("| --- | --- | --- | --- | --- | --- |")
    for stage, shape in SHAPES:
        size = "x".join(map(str, shape))
        enlarges = stage == "super_resolution"
        whole = (320, 512) if enlarges else (40, 64)
        rows, frames = (1, 1) if enlarges else (2, 4)  # the pipelines' defaults
        plain = denoising_gib(stage, shape, rows=rows) + waiting_gib(stage, "text", "vae")
        decoder = decoding_gib(stage, frames, whole, tiled=False)
        decoder += waiting_gib(stage, "text", "unet")
        low = denoising_gib(stage, shape, rows=1)
        low_decoder = decoding_gib(stage, 1, whole, tiled=True)
        for how, network, decode in (
            ("default", plain, decoder),
            ("--low-memory", low, low_decoder),
        ):
            console.print(
                f"| {stage} | {size} | {how} | {network:.1f} | {decode:.1f} | "
                f"{max(network, decode):.1f} |",
                highlight=False,
            )


if __name__ == "__main__":
    main()
