"""The network that a run starts from, and the frozen models beside it.

`ModelConfig.initial_weights` may be a model folder of this project, a released checkpoint, an image model to
grow from, or "tiny". What a path holds is told by its content, not by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from curation.errors import UsageError
from training.data.companions import latent_space_of, text_width_of
from training.models.autoencoder import Autoencoder
from training.models.exported import load_model
from training.models.grow import (
    grow_base,
    grow_interpolation,
    grow_super_resolution,
    widen_input,
)
from training.models.mini import mini_config
from training.models.released import load_released
from training.models.schedule import Objective, Stage
from training.models.state import read_tensors
from training.models.text_encoder import TextEncoder
from training.models.tiny import TEXT_WIDTH, tiny_autoencoder, tiny_config, tiny_text_encoder
from training.models.unet import UNet
from training.models.unet_config import UNetConfig
from training.run_config import FRESH, TrainConfig
from training.stages import Companions

TINY = "tiny"
FRESH_CONFIGS: dict[str, Callable[[Stage], UNetConfig]] = {TINY: tiny_config, "mini": mini_config}
assert tuple(FRESH_CONFIGS) == FRESH, "what can be asked for can be made"


class WrongInitialWeights(UsageError):
    """The weights that a run should start from cannot be used; the message says why."""


def initial_network(config: TrainConfig, objective: Objective) -> UNet:
    """The network of a run before its first step, fp32, on the CPU.

    Raises:
        WrongInitialWeights: What `model.initial_weights` names does not exist or does not fit.
    """
    try:
        net = _network(config, objective)
    except (FileNotFoundError, ValueError) as error:
        raise WrongInitialWeights(
            f"--model.initial-weights: training {config.stage} cannot start from "
            f"{config.model.initial_weights}: {error}"
        ) from error
    if config.model.first_frame_channels and net.config.in_channels == net.config.out_channels:
        net = widen_input(net, 1 + net.config.out_channels)  # mask, and the masked latents (SEINE)
    return net.float()


def _network(config: TrainConfig, objective: Objective) -> UNet:
    given = config.model.initial_weights
    if given in FRESH_CONFIGS:
        return _fresh(config)
    path = Path(given)
    if path.is_file() and path.suffix in (".pt", ".pth", ".ckpt"):
        return _released(path, config)
    if (path / "unet" / "model.safetensors").is_file():
        return _exported(path, config, objective)
    image = path / "unet" if (path / "unet").is_dir() else path
    if not image.exists():
        raise FileNotFoundError("there is no such file or folder")
    if config.stage == "super_resolution":
        return grow_super_resolution(image)
    base = grow_base(image)
    return base if config.stage == "base" else grow_interpolation(base)


def _fresh(config: TrainConfig) -> UNet:
    """A network of the asked size for the companions' latents and text; the same for the same seed."""
    size = FRESH_CONFIGS[config.model.initial_weights](config.stage)
    width = text_width_of(config, TEXT_WIDTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return UNet(size.on(latent_space_of(config), width))


def _released(path: Path, config: TrainConfig) -> UNet:
    if config.stage != "interpolation":
        return load_released(path, config.stage)
    channels = read_tensors(path)["conv_in.weight"].shape[1]
    if channels == UNetConfig.base().in_channels:
        return grow_interpolation(load_released(path, "base"))
    return load_released(path, "interpolation")


def _exported(path: Path, config: TrainConfig, objective: Objective) -> UNet:
    if config.stage == "interpolation":
        as_base = replace(objective, stage="base")
        try:
            return grow_interpolation(load_model(path, as_base).net)
        except ValueError as not_a_base:
            if "stage is interpolation" not in str(not_a_base):
                raise
    return load_model(path, objective).net


def companions_of(config: TrainConfig, objective: Objective, width: int) -> Companions:
    """The autoencoder and the text encoder of a run, fp32, on the CPU.

    Both are None where every source was encoded beforehand and no folder is named.

    Args:
        config: The run.
        objective: Says the scale of the latents.
        width: Of the network's text states.

    Raises:
        WrongInitialWeights: They are not there, or do not fit the network.
    """
    sources = config.data.sources
    encoded = bool(sources) and all(source.encoded for source in sources)
    if encoded and config.model.companions is None:
        return Companions(None, None)
    if config.model.initial_weights == TINY and config.model.companions is None:
        return Companions(tiny_autoencoder(config.stage), tiny_text_encoder())
    folder = Path(config.model.companions or config.model.initial_weights)
    try:
        autoencoder, text_encoder = Autoencoder.load(folder / "vae"), TextEncoder.load(folder)
    except (FileNotFoundError, OSError, ValueError) as error:
        raise WrongInitialWeights(
            f"--model.companions: no autoencoder and text encoder in {folder}: {error}; "
            f"name the folder that has them (`lavie weights fetch stable-diffusion-1.4`, or "
            f"x4-upscaler for super-resolution; `lavie train autoencoder` for a small cascade)"
        ) from error
    if autoencoder.scale != objective.latent_scale:
        raise WrongInitialWeights(
            f"--model.companions: the autoencoder of {folder} scales latents by {autoencoder.scale}, "
            f"{config.stage} needs {objective.latent_scale}"
        )
    if text_encoder.width != width:
        raise WrongInitialWeights(
            f"--model.companions: the text encoder of {folder} is {text_encoder.width} wide, "
            f"the network reads {width}"
        )
    return Companions(autoencoder, text_encoder)


def weights_digest(module: nn.Module | None) -> str:
    """SHA-256 of names, shapes and bytes of a module's tensors; "none" for no module."""
    if module is None:
        return "none"
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(data.numpy().data)
    return digest.hexdigest()
