"""What a finished run leaves: averaged weights that sampling loads, or adapters."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from curation.corpus.store import Store
from training.learner import Learner
from training.lora import adapter_tensors, save_adapters
from training.models.exported import ExportedModel, SampleShape, save_model
from training.models.unet import UNet
from training.run_config import TrainConfig

FOLDER = "model"
ADAPTERS = "lora"


def export(learner: Learner, run: Store, step: int) -> None:
    """Write the averaged weights as ``model/``, or the adapters as ``lora/``, of a run.

    An earlier one of the same run, from fewer steps, is replaced. Every rank calls this.
    """
    with learner.averaged() as net:
        tensors = {name: _whole(tensor) for name, tensor in net.state_dict().items()}
        adapters = adapter_tensors(net) if learner.config.lora.enabled else {}
    if learner.ranks.is_first:
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            folder = _write(learner, tensors, adapters, Path(scratch), step)
            _put(run, folder)
    learner.ranks.wait_for_all()


def _write(
    learner: Learner,
    tensors: dict[str, Tensor],
    adapters: dict[str, Tensor],
    scratch: Path,
    step: int,
) -> Path:
    config, objective = learner.config, learner.stage.objective
    if config.lora.enabled:
        save_adapters(adapters, scratch / ADAPTERS, config.lora, objective)
        return scratch / ADAPTERS
    with torch.device("meta"):
        net = UNet(learner.architecture)
    net.load_state_dict(tensors, strict=True, assign=True)
    origin = f"trained by lavie for {step} steps, averaged weights"
    model = ExportedModel(
        net=net,
        objective=objective,
        autoencoder=learner.companions.autoencoder,
        text_encoder=learner.companions.text_encoder,
        samples=_samples(config),
        origin=origin,
    )
    save_model(model, scratch / FOLDER)
    return scratch / FOLDER


def _samples(config: TrainConfig) -> SampleShape:
    height, width = config.phases[-1].sizes_px[0]
    sample = config.sample
    return SampleShape(num_frames=sample.num_frames, fps=sample.fps, height=height, width=width)


def _put(run: Store, folder: Path) -> None:
    if not run.is_local:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                run.put_file(str(path.relative_to(folder.parent)), path)
        return
    target = Path(run.path(folder.name))
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
