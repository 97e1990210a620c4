"""What a finished run leaves: averaged weights that sampling loads, or adapters."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.lora import adapter_tensors, save_adapters
from training.models import UNet
from training.models.exported import ExportedModel, save_model

if TYPE_CHECKING:
    from training.trainer import Trainer

FOLDER = "model"
ADAPTERS = "lora"


def export(trainer: Trainer) -> None:
    """Write the averaged weights as ``model/``, or the adapters as ``lora/``, of the run.

    An earlier one of the same run, from fewer steps, is replaced.
    """
    with trainer.averaged() as net:
        tensors = {name: _whole(tensor) for name, tensor in net.state_dict().items()}
        adapters = adapter_tensors(net) if trainer.config.lora.enabled else {}
    if trainer.ranks.is_first:
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            folder = _write(trainer, tensors, adapters, Path(scratch))
            _put(trainer, folder)
    trainer.ranks.wait_for_all()


def _write(
    trainer: Trainer, tensors: dict[str, Tensor], adapters: dict[str, Tensor], scratch: Path
) -> Path:
    config, objective = trainer.config, trainer.stage.objective
    if config.lora.enabled:
        save_adapters(adapters, scratch / ADAPTERS, config.lora, objective)
        return scratch / ADAPTERS
    with torch.device("meta"):
        net = UNet(trainer.architecture)
    net.load_state_dict(tensors, strict=True, assign=True)
    origin = f"trained by lavie for {trainer.step} steps, averaged weights"
    model = ExportedModel(
        net=net,
        objective=objective,
        autoencoder=trainer.companions.autoencoder,
        text_encoder=trainer.companions.text_encoder,
        origin=origin,
    )
    save_model(model, scratch / FOLDER)
    return scratch / FOLDER


def _put(trainer: Trainer, folder: Path) -> None:
    if not trainer.run.is_local:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                trainer.run.put_file(str(path.relative_to(folder.parent)), path)
        return
    target = Path(trainer.run.path(folder.name))
    draft = target.with_name(f".writing-{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(folder, draft)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)


def _whole(tensor: Tensor) -> Tensor:
    """All shards of a tensor together, on the CPU."""
    full = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if full is None else full()
    return whole.detach().cpu().clone()
