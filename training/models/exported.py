"""A trained network on disk: a folder that says what it is and cannot be loaded as something else.

    config.json              format, objective (noise schedule, prediction, latent scale), samples, origin
    unet/config.json         architecture
    unet/model.safetensors   tensors; the objective's digest is in the file's own metadata
    vae/ text_encoder/ tokenizer/      companions, where they were exported too (diffusers folders)

The folder appears whole or not at all. Nothing in it is pickled.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.models.autoencoder import Autoencoder
from training.models.schedule import Objective
from training.models.state import fill, read_safetensors
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet
from training.models.unet_config import UNetConfig

FORMAT = "lavie-model"
FORMAT_VERSION = 1
OBJECTIVE_KEY = "objective_sha256"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleShape:
    """What the videos were like that a network was trained on: what it is sampled at by default."""

    num_frames: int
    """T."""
    fps: float
    """Frames a second."""
    height: int
    """H, pixels; the first size where there were several."""
    width: int
    """W, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A network with what it was trained for and, where exported together, its companions."""

    net: UNet
    """The denoising network."""
    objective: Objective
    """Noise schedule, prediction and latent scale of its training."""
    autoencoder: Autoencoder | None = None
    """Between pixels and latents; its scale must be the objective's."""
    text_encoder: TextEncoder | None = None
    """From prompts to text states."""
    samples: SampleShape | None = None
    """The videos of its training; None where that is not known, as of the released checkpoints."""
    origin: str = ""
    """Where the weights come from, in words: a file and its digest, or a training run."""

    def __post_init__(self) -> None:
        """Raise ValueError where network, companions and objective contradict each other."""
        config, objective = self.net.config, self.objective
        if config.takes_noise_level != (objective.stage == "super_resolution"):
            raise ValueError(
                f"net must be a {objective.stage} network as the objective says, "
                f"got num_class_embeds {config.num_class_embeds}"
            )
        if self.autoencoder is not None and self.autoencoder.scale != objective.latent_scale:
            raise ValueError(
                f"autoencoder must have the objective's latent scale {objective.latent_scale}, "
                f"got {self.autoencoder.scale}"
            )
        channels = self.autoencoder and self.autoencoder.latents.channels
        if channels and channels != config.out_channels:
            raise ValueError(
                f"autoencoder must have the network's {config.out_channels} latent channels, got {channels}"
            )
        if self.text_encoder is not None and self.text_encoder.width != config.cross_attention_dim:
            raise ValueError(
                f"text_encoder must be {config.cross_attention_dim} wide as the network's text, "
                f"got {self.text_encoder.width}"
            )


def save_model(model: ExportedModel, folder: Path) -> None:
    """Write a model as a new folder.

    Raises:
        FileExistsError: The folder exists; a model is never overwritten.
    """
    if folder.exists():
        raise FileExistsError(f"the folder of a model must be new, {folder} exists")
    with _whole_or_not_at_all(folder) as draft:
        unet = draft / "unet"
        unet.mkdir()
        _write_json(unet / "config.json", asdict(model.net.config))
        tensors = {key: value.contiguous() for key, value in model.net.state_dict().items()}
        save_file(tensors, unet / WEIGHTS, metadata={OBJECTIVE_KEY: model.objective.digest()})
        if model.autoencoder is not None:
            model.autoencoder.save(draft / "vae")
        if model.text_encoder is not None:
            model.text_encoder.save(draft)
        config = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "objective": model.objective.to_json(),
            "samples": model.samples and asdict(model.samples),
            "origin": model.origin,
        }
        _write_json(draft / "config.json", config)


def read_objective(folder: Path) -> Objective:
    """What the weights of a model folder were trained for, without reading them.

    Raises:
        FileNotFoundError: There is no model.
        ValueError: It is no model folder.
    """
    return Objective.from_json(_read_config(folder).get("objective"))


def read_samples(folder: Path) -> SampleShape | None:
    """What the videos of a model's training were like, without reading its weights.

    Raises:
        FileNotFoundError: There is no model.
        ValueError: It is no model folder.
    """
    return _samples(_read_config(folder).get("samples"))


def _samples(values: Any) -> SampleShape | None:
    try:
        return None if values is None else SampleShape(**values)
    except TypeError as error:
        raise ValueError(f"not the shape of samples: {error}; got {values}") from error


def load_model(folder: Path, expected: Objective) -> ExportedModel:
    """Read a model, and refuse one that was trained for something else.

    Args:
        folder: What `save_model` wrote.
        expected: The objective that the caller will sample or train with; `Objective.of` gives the
            released ones.

    Returns:
        The model on the CPU, in the dtype it was saved in, its companions too where the folder has
        them.

    Raises:
        FileNotFoundError: The folder, or a file of it, is not there.
        ValueError: It is no model folder, the objective differs, the tensors belong to another
            objective than config.json says, or keys are wrong.
    """
    config = _read_config(folder)
    objective = Objective.from_json(config.get("objective"))
    _check_metadata(folder / "unet" / WEIGHTS, objective)
    objective.check_equals(expected)
    with torch.device("meta"):
        net = UNet(_unet_config(_read_json(folder / "unet" / "config.json")))
    path = folder / "unet" / WEIGHTS
    fill(net, read_safetensors(path), str(path))
    has_text = (folder / "text_encoder").is_dir()
    return ExportedModel(
        net=net,
        objective=objective,
        autoencoder=Autoencoder.load(folder / "vae") if (folder / "vae").is_dir() else None,
        text_encoder=TextEncoder.load(folder) if has_text else None,
        samples=_samples(config.get("samples")),
        origin=config.get("origin", ""),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    if config.get("format") != FORMAT or config.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder} must hold a {FORMAT} of version {FORMAT_VERSION}, got format "
            f"{config.get('format')!r}, version {config.get('format_version')!r}"
        )
    return config


def _check_metadata(path: Path, objective: Objective) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(OBJECTIVE_KEY)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if digest != objective.digest():
        raise ValueError(
            f"the tensors of {path} were saved for another objective than config.json says: "
            f"digest {digest}, expected {objective.digest()}"
        )


def _unet_config(values: dict[str, Any]) -> UNetConfig:
    try:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return UNetConfig(**fields)
    except TypeError as error:
        raise ValueError(f"not a network's configuration: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no model here: {path} is missing")
    held = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(held, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(held).__name__}")
    return held


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        yield draft
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
