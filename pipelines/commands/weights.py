"""weights list, fetch, check, path, convert: model files by name or group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, subcommand

from curation.errors import MissingWeights, UsageError
from curation.weights.catalog import GROUPS, WEIGHTS, Weight, cache_dir, file_sha256, find
from curation.weights.fetch import fetch
from curation.weights.torchvision_shim import ensure_torchvision
from pipelines.places import check_new, named_file

if TYPE_CHECKING:
    from training.models.autoencoder import Autoencoder
    from training.models.text_encoder import TextEncoder

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@cache
def known_groups() -> dict[str, tuple[Weight, ...]]:
    """All groups: those of curation and the released ones of training.

    Imports torch, so it is called by the commands that need it and not when this file is imported.
    """
    from training.models.released import released_files

    released: dict[str, tuple[Weight, ...]] = {}
    for file in released_files():
        weight = Weight(
            name=file.name,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            licence=file.licence,
            url=file.url,
        )
        released[file.group] = (*released.get(file.group, ()), weight)
    return GROUPS | released


def known_files() -> dict[str, Weight]:
    """All files by name."""
    return WEIGHTS | {weight.name: weight for group in known_groups().values() for weight in group}


def named(names: Iterable[str]) -> list[Weight]:
    """The files that some names or groups stand for, each once.

    Raises:
        UsageError: for a name that is neither, with the choices.
    """
    found: list[Weight] = []
    for name in names:
        groups, files = known_groups(), known_files()
        if name not in groups and name not in files:
            raise UsageError(
                f"no model file or group is called {name!r}; groups: {', '.join(groups)}; "
                f"files: {', '.join(files)}"
            )
        found += groups[name] if name in groups else [files[name]]
    return list(dict.fromkeys(found))


def _state(weight: Weight) -> str:
    try:
        find(weight)
    except MissingWeights as error:
        return "wrong bytes" if "refused" in str(error) else "missing"
    return "found"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsList:
    """Say which model files exist, for what, under which licence, and whether they are here."""

    def run(self) -> int:
        """Print a table."""
        table = Table()
        for header in ("file", "groups", "licence", "MB", "here"):
            table.add_column(header, justify="right" if header == "MB" else "left", overflow="fold")
        for weight in known_files().values():
            groups = ", ".join(name for name, files in known_groups().items() if weight in files)
            size = f"{weight.size_bytes / 1e6:,.1f}" if weight.size_bytes else "?"
            table.add_row(weight.name, groups, weight.licence, size, _state(weight))
        Console().print(table)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFetch:
    """Fetch model files into the cache, each checked by its sha256; those already here are left."""

    names: Positional[tuple[str, ...]]
    """Groups or files, as `lavie weights list` names them."""

    def run(self) -> int:
        """Fetch what is missing and print where everything lies."""
        if not self.names:
            raise UsageError(f"name what to fetch; groups: {', '.join(known_groups())}")
        console = Console()
        for weight in named(self.names):
            (cache_dir() / weight.name).parent.mkdir(parents=True, exist_ok=True)
            with console.status(f"fetching {weight.name}"):
                path = fetch(weight)
            console.print(f"{weight.name}: {path}", soft_wrap=True, highlight=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsCheck:
    """Check the bytes of model files; 1 if one is missing or wrong."""

    names: Positional[tuple[str, ...]] = ()
    """Groups or files; all by default."""

    def run(self) -> int:
        """Print a line for each file."""
        console = Console()
        weights = named(self.names or tuple(known_files()))
        states = [_state(weight) for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            console.print(f"{weight.name}: {state}", highlight=False)
        return 0 if all(state == "found" for state in states) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPath:
    """Print the path of one file that is here, for use in other commands."""

    name: Positional[str]
    """A file, as `lavie weights list` names it."""

    def run(self) -> int:
        """Print the path alone."""
        weights = named([self.name])
        if len(weights) > 1:
            files = ", ".join(weight.name for weight in weights)
            raise UsageError(f"{self.name} is a group of {len(weights)} files; name one: {files}")
        (weight,) = weights
        Console().print(str(find(weight)), soft_wrap=True, highlight=False, markup=False)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConvert:
    """Turn a released LaVie checkpoint into a model folder: safetensors with its noise schedule."""

    stage: Positional[Literal["base", "interpolation", "super_resolution"]]
    """Which network of the cascade."""
    out: Path
    """New folder of the model."""
    checkpoint: Path | None = None
    """Released .pt or .safetensors file; None takes the one that `lavie weights fetch lavie` brought."""
    companions: Path | None = None
    """Folder with vae/, text_encoder/ and tokenizer/ to put into the model, as fetch lays them out."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the network's tensors; autoencoder and text encoder keep fp32."""

    def run(self) -> int:
        """Read, check every key, write the folder and print where it is."""
        import torch

        from training.models.exported import ExportedModel, save_model
        from training.models.released import CHECKPOINT_OF, load_released
        from training.models.schedule import Objective

        check_new(self.out, "--out")
        checkpoint = self.checkpoint or find(known_files()[CHECKPOINT_OF[self.stage]])
        with named_file("--checkpoint"):
            net = load_released(checkpoint, self.stage).to(getattr(torch, DTYPES[self.dtype]))
        with named_file("--companions"):
            autoencoder, text_encoder = self._load_companions()
        model = ExportedModel(
            net=net,
            objective=Objective.of(self.stage),
            autoencoder=autoencoder,
            text_encoder=text_encoder,
            origin=f"{checkpoint.name} sha256 {file_sha256(checkpoint)}",
        )
        save_model(model, self.out)
        Console().print(str(self.out), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _load_companions(self) -> tuple[Autoencoder | None, TextEncoder | None]:
        if self.companions is None:
            return None, None
        from training.models.autoencoder import Autoencoder
        from training.models.text_encoder import TextEncoder

        ensure_torchvision()
        return Autoencoder.load(self.companions / "vae"), TextEncoder.load(self.companions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Model files: list, fetch, check, path, convert."""

    action: (
        Annotated[WeightsList, subcommand("list")]
        | Annotated[WeightsFetch, subcommand("fetch")]
        | Annotated[WeightsCheck, subcommand("check")]
        | Annotated[WeightsPath, subcommand("path")]
        | Annotated[WeightsConvert, subcommand("convert")]
    )
    """What to do."""

    def run(self) -> int:
        """Do it."""
        return self.action.run()
