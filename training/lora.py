"""Personalised video: low-rank adapters on the spatial layers (paper, section 3.5).

The adapters sit on the attention that a frame pays to itself and to the text; temporal layers and
everything else stand still. They are saved in diffusers' LoRA format, so that any program that
knows Stable Diffusion's adapters reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.schedule import Objective
from training.models.unet import UNet
from training.run_config import LoraConfig

TARGETS = r".*\.(attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)"
ADAPTER = "default"
FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


def add_adapters(net: UNet, config: LoraConfig, *, seed: int) -> None:
    """Put a fresh adapter beside every spatial attention projection, in place.

    Only the adapters' two factors can learn afterwards; the second is zero, so that the network
    says what it said before.
    """
    ensure_torchvision()
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=TARGETS, lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, net, adapter_name=ADAPTER)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def adapter_tensors(net: UNet) -> dict[str, Tensor]:
    """The factors under the names that diffusers gives them: ``unet.<layer>.lora_A.weight``."""
    middle = f".{ADAPTER}."
    return {
        f"unet.{name.replace(middle, '.')}": parameter.detach().cpu().contiguous()
        for name, parameter in net.named_parameters()
        if ".lora_" in name
    }


def save_adapters(
    tensors: dict[str, Tensor], folder: Path, config: LoraConfig, objective: Objective
) -> Path:
    """Write ``pytorch_lora_weights.safetensors``; rank and alpha are in its metadata.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapter: dict[str, Any] = {
        "unet.r": config.rank,
        "unet.lora_alpha": config.alpha,
        "unet.target_modules": TARGETS,
    }
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(adapter, sort_keys=True),
        "objective_sha256": objective.digest(),
    }
    save_file(tensors, folder / FILE, metadata=metadata)
    return folder / FILE
