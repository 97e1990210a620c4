"""What holds for all tests of training; its corpus is `small_corpus` of tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch


@pytest.fixture(scope="session")
def rule_net() -> Callable[..., object]:
    """The tiny network of a stage, every parameter drawn, so that no layer is still at zero."""
    from training.models.tiny import tiny_config
    from training.models.unet import UNet

    def make(stage: str) -> UNet:
        net = UNet(tiny_config(stage))  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(20230915)
        for name, parameter in net.named_parameters():
            if name.endswith("rotary_emb.freqs"):
                continue
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.data = drawn / parameter[0].numel() ** 0.5
            elif "norm" in name and name.endswith("weight"):
                parameter.data = 1 + 0.1 * drawn
            else:
                parameter.data = 0.05 * drawn
        return net

    return make


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)
