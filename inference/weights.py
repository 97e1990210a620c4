"""Where the weights of a stage come from, checked before any work and loaded when needed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.tiny import tiny_model
from training.models.autoencoder import Autoencoder
from training.models.exported import (
    WEIGHTS,
    ExportedModel,
    SampleShape,
    load_model,
    read_objective,
    read_samples,
)
from training.models.released import load_released
from training.models.schedule import Objective, Stage
from training.models.text_encoder import TextEncoder

COMPANIONS = ("vae/config.json", "text_encoder/config.json", "tokenizer")


class Weights(Protocol):
    """Weights of one stage with its companions."""

    @property
    def stage(self) -> Stage:
        """Which stage they are of."""

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError, without reading tensors, if they cannot be used."""

    def load(self) -> ExportedModel:
        """Network, autoencoder and text encoder, on the CPU in the dtype of the files."""

    def digest(self) -> str:
        """SHA-256 of the network's file, or what stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedWeights:
    """A folder that training or `lavie weights convert` exported, companions included."""

    stage: Stage
    """Which stage it must be of."""
    folder: Path
    """The folder."""

    def check(self) -> None:
        """See `Weights`."""
        found = read_objective(self.folder)
        if found.stage != self.stage:
            raise ValueError(
                f"{self.folder} must hold a model of stage {self.stage}, got {found.stage}"
            )
        for name in COMPANIONS:
            if not (self.folder / name).exists():
                raise FileNotFoundError(
                    f"{self.folder} was exported without its companions, {name} is missing: "
                    f"export it with vae/, text_encoder/ and tokenizer/ beside unet/"
                )

    def load(self) -> ExportedModel:
        """See `Weights`."""
        return load_model(self.folder, read_objective(self.folder))

    def digest(self) -> str:
        """SHA-256 of ``unet/model.safetensors``."""
        with (self.folder / "unet" / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def conditioned(self) -> bool:
        """Whether the network has channels for given frames."""
        config = json.loads((self.folder / "unet" / "config.json").read_text("utf-8"))
        return bool(config.get("in_channels") == 2 * config.get("out_channels", 0) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedWeights:
    """One of LaVie's checkpoints and the folder of the image model that it stands on."""

    stage: Stage
    """Which stage the checkpoint is of."""
    checkpoint: Path
    """``lavie_base.pt``, ``lavie_interpolation.pt`` or ``lavie_vsr.pt``."""
    companions: Path
    """Folder with ``vae/``, ``text_encoder/`` and ``tokenizer/``."""
    sha256: str
    """Digest of the checkpoint, checked by whoever found it."""

    def check(self) -> None:
        """See `Weights`."""
        for path in (self.checkpoint, *(self.companions / name for name in COMPANIONS)):
            if not path.exists():
                raise FileNotFoundError(f"no weights of stage {self.stage} at {path}")

    def load(self) -> ExportedModel:
        """See `Weights`."""
        return ExportedModel(
            net=load_released(self.checkpoint, self.stage).eval(),
            objective=Objective.of(self.stage),
            autoencoder=Autoencoder.load(self.companions / "vae"),
            text_encoder=TextEncoder.load(self.companions),
            origin=f"{self.checkpoint.name} sha256 {self.sha256}",
        )

    def digest(self) -> str:
        """SHA-256 of the checkpoint."""
        return self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyWeights:
    """Tiny untrained networks; see `inference.tiny`."""

    stage: Stage
    """Which stage."""
    seed: int = 0
    """Seed of the weights."""

    def check(self) -> None:
        """Nothing can be missing."""

    def load(self) -> ExportedModel:
        """See `Weights`."""
        return tiny_model(self.stage, seed=self.seed)

    def digest(self) -> str:
        """The seed that stands for all tensors."""
        return f"tiny-untrained-seed-{self.seed}"


def exported_weights(folder: Path, stages: Sequence[Stage]) -> dict[Stage, Weights]:
    """Weights below a folder, checked.

    Args:
        folder: One exported model, for its stage alone; or a folder with one for each stage, called
            ``base``, ``interpolation`` and ``super-resolution`` (or ``super_resolution``). A
            training run stands for the model that it left.
        stages: Those that are wanted.

    Raises:
        FileNotFoundError: A model is missing.
        ValueError: One is of another stage.
    """
    folder = _model_of(folder)
    if (folder / "config.json").is_file():
        if len(stages) != 1:
            raise ValueError(
                f"{folder} holds one model, for one stage; got stages {', '.join(stages)}: give the "
                f"folder that has a model for each of them"
            )
        found = {stages[0]: folder}
    else:
        found = {stage: _below(folder, stage) for stage in stages}
    weights: dict[Stage, Weights] = {}
    for stage, path in found.items():
        weights[stage] = ExportedWeights(stage=stage, folder=path)
        weights[stage].check()
    return weights


def base_samples(folder: Path) -> SampleShape | None:
    """What the base network below a folder, as of `exported_weights`, was trained on, where it says so.

    Raises:
        FileNotFoundError: There is no base network.
        ValueError: What is there is no model.
    """
    folder = _model_of(folder)
    found = folder if (folder / "config.json").is_file() else _below(folder, "base")
    return read_samples(found) if read_objective(found).stage == "base" else None


def _below(folder: Path, stage: Stage) -> Path:
    names = dict.fromkeys((stage, stage.replace("_", "-")))
    for name in names:
        if (folder / name).is_dir():
            return _model_of(folder / name)
    raise FileNotFoundError(
        f"no model of stage {stage} in {folder}: no folder {' or '.join(names)}"
    )


def _model_of(folder: Path) -> Path:
    """The model that a training run left, where the folder is a run; else the folder itself."""
    return folder / "model" if (folder / "model" / "unet").is_dir() else folder
