"""Official reference outputs, tiny configurations and the weights that go with them."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

SPEC = Path(__file__).resolve().parents[4] / "shared" / "spec"


def tiny_config(stage: str) -> UNetConfig:
    """The small sizes at which the reference outputs of the official code were taken."""
    if stage == "super_resolution":
        return replace(
            UNetConfig.super_resolution(),
            block_out_channels=(32, 64, 64, 128),
            num_attention_heads=(1, 1, 1, 2),
            layers_per_block=1,
            cross_attention_dim=24,
        )
    full = UNetConfig.base() if stage == "base" else UNetConfig.interpolation()
    return replace(
        full,
        block_out_channels=(40, 80, 80, 80),
        num_attention_heads=(1, 2, 2, 2),
        layers_per_block=1,
        cross_attention_dim=24,
        norm_num_groups=8,
    )


def rule_weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weight of one key by the rule under which the reference outputs were taken."""
    seed = [20230915, zlib.crc32(key.encode())]
    n = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if "relative_attention_bias" in key:
        n = 0.5 * n
    elif "class_embedding" in key:
        n = 0.3 * n
    elif key.endswith(".bias"):
        n = 0.05 * n
    elif len(shape) == 1 and any(p.startswith(("norm", "conv_norm")) for p in key.split(".")):
        n = 1 + 0.1 * n
    else:
        n = n / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else shape[0])
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def load_rule_weights(net: UNet) -> UNet:
    """Fill every parameter by the rule; the rotary frequencies stay what they are."""
    state = net.state_dict()
    filled = {
        key: value if key.endswith("rotary_emb.freqs") else rule_weight(key, tuple(value.shape))
        for key, value in state.items()
    }
    net.load_state_dict(filled, strict=True)
    return net.eval()


@pytest.fixture(scope="session", name="tiny_config")
def tiny_config_fixture() -> Callable[[str], UNetConfig]:
    """Tiny configuration of a stage."""
    return tiny_config


@pytest.fixture(scope="session")
def tiny_net() -> Callable[..., UNet]:
    """Build the tiny network of a stage, or of a configuration, with the weights of the rule."""

    def build(stage: str | UNetConfig) -> UNet:
        config = tiny_config(stage) if isinstance(stage, str) else stage
        return load_rule_weights(UNet(config))

    return build


@pytest.fixture(scope="session")
def inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """Random arguments of a tiny network's forward, as keyword arguments."""

    def draw(
        net: UNet,
        *,
        batch: int = 1,
        frames: int = 3,
        size: tuple[int, int] = (8, 8),
        images: int = 0,
    ) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(7)
        config = net.config
        rows = (batch, 1 + images) if images else (batch,)
        drawn = {
            "sample_BCTHW": torch.randn(
                batch, config.in_channels, frames + images, *size, generator=rng
            ),
            "timestep_B": torch.randint(0, 1000, (batch,), generator=rng),
            "text_BLD": torch.randn(*rows, 5, config.cross_attention_dim, generator=rng),
        }
        if config.takes_noise_level:
            drawn["noise_level_B"] = torch.randint(0, 351, (batch,), generator=rng)
        return drawn

    return draw


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def key_table() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Key and shape table of an official state dict, by the name of its file."""

    def read(name: str) -> dict[str, tuple[int, ...]]:
        path = SPEC / "lavie-keys" / f"{name}.json.gz"
        if not path.exists():
            pytest.skip(f"the official key tables are not beside this checkout: {path.name}")
        shapes = json.loads(gzip.decompress(path.read_bytes()))["shapes"]
        return {key: tuple(shape) for key, shape in shapes.items()}

    return read


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, torch.Tensor]]:
    """Inputs, outputs and intermediate outputs of an official network at tiny size."""

    def read(name: str) -> dict[str, torch.Tensor]:
        path = SPEC / "reference" / f"{name}-tiny-b2f4h8w8.npz"
        if not path.exists():
            pytest.skip(f"the official outputs are not beside this checkout: {path.name}")
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope="session", autouse=True)
def _torchvision() -> None:
    """The image twins and companions import diffusers, which imports torchvision."""
    ensure_torchvision()
