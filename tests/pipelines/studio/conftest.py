"""A real, tiny cascade behind the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.memory import Machine
from inference.settings import ORDER, CascadeConfig
from inference.weights import TinyWeights
from pipelines.studio.sampler import CascadeSampler, lora_files


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LoRAs that fit the tiny base network, and one that does not."""
    folder = tmp_path_factory.mktemp("loras")
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    for seed, name in enumerate(("cat", "ink sketch")):
        generator = torch.Generator().manual_seed(seed)
        state = {
            f"{key}.lora_A.weight": torch.randn(2, 32, generator=generator),
            f"{key}.lora_B.weight": torch.randn(32, 2, generator=generator),
        }
        save_file(state, folder / f"{name}.safetensors")
    wrong = {f"{key}.lora_A.weight": torch.zeros(2, 8), f"{key}.lora_B.weight": torch.zeros(8, 2)}
    (folder / "foreign").mkdir()
    save_file(wrong, folder / "foreign" / "pytorch_lora_weights.safetensors")
    return folder


@pytest.fixture
def tiny_sampler(lora_folder: Path) -> Callable[..., CascadeSampler]:
    """``tiny_sampler(stages=("base",))``: 3 frames of 32x48."""

    def make(stages: tuple[str, ...] = ORDER) -> CascadeSampler:
        return CascadeSampler(
            {stage: TinyWeights(stage=stage) for stage in stages},  # type: ignore[arg-type]
            Machine(),
            config=CascadeConfig(height=32, width=48, num_frames=3),
            loras=lora_files(lora_folder),
            label="tiny networks",
        )

    return make
