"""LoRA on the image layers of a video network (arXiv 2106.09685).

A LoRA of an image network fits a video network grown from it: its layers have the same names and
shapes. It says W + s (alpha / r) B A for some weights W; the temporal layers keep theirs.

Shape letters: r rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from inference.diffusers_names import (
    delete_adapter_layers,
    recurse_remove_peft_layers,
    set_weights_and_activate_adapters,
)
from inference.lora_file import LoraModule, raise_listed
from training.models.grow import is_temporal
from training.models.transformer import PointwiseConv


def check_lora(model: nn.Module, modules: Mapping[str, LoraModule], source: str) -> None:
    """Refuse a LoRA for another network before anything is touched.

    Args:
        model: The network or text tower.
        modules: What is added to which of its modules.
        source: What is being loaded, for the message.

    Raises:
        ValueError: A module is missing, temporal or of another shape; the message names them.
    """
    held = dict(model.named_modules())
    faults = [
        f"{name}: {fault}"
        for name, lora in modules.items()
        if (fault := _fault(held.get(name), name, lora))
    ]
    raise_listed(faults, f"{source} does not fit {type(model).__name__}")


def _fault(target: nn.Module | None, name: str, lora: LoraModule) -> str | None:
    if target is None:
        return "there is no such module"
    if is_temporal(name):
        return "a temporal layer, which a LoRA for images does not have"
    target = getattr(target, "base_layer", target)
    if not isinstance(target, nn.Linear | nn.Conv2d):
        return f"{type(target).__name__} takes no LoRA"
    if lora.down is None or lora.up is None:
        return f"lora_{'A' if lora.down is None else 'B'} is missing"
    if lora.alpha is not None and not math.isfinite(lora.alpha):
        return f"alpha is {lora.alpha}"
    weight, rank = target.weight, lora.down.shape[0]
    down: tuple[int, ...] = (rank, *weight.shape[1:])
    up: tuple[int, ...] = (weight.shape[0], rank, *(1,) * (weight.ndim - 2))
    got_down, got_up = tuple(lora.down.shape), tuple(lora.up.shape)
    if isinstance(target, PointwiseConv):  # its image twin may be a linear layer
        down, up, got_down, got_up = down[:2], up[:2], got_down[:2], got_up[:2]
    if (got_down, got_up) == (down, up):
        return None
    return f"shapes {got_down} and {got_up}, expected {down} and {up}"


def inject_lora(model: nn.Module, modules: Mapping[str, LoraModule], adapter: str) -> None:
    """Put a checked LoRA beside the weights of a model, under a name.

    Args:
        model: The network or text tower, changed in place.
        modules: As checked by `check_lora`.
        adapter: Name that no other LoRA of the model has.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.lora import Linear

    state: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    held = dict(model.named_modules())
    for name, lora in modules.items():
        assert lora.down is not None  # by check_lora
        assert lora.up is not None
        target = getattr(held[name], "base_layer", held[name])
        flat = isinstance(target, PointwiseConv)
        ranks[name] = lora.down.shape[0]
        state[f"{name}.lora_A.weight"] = lora.down.flatten(1) if flat else lora.down
        state[f"{name}.lora_B.weight"] = lora.up.flatten(1) if flat else lora.up
    config: Any = LoraConfig(
        r=1,
        target_modules=list(modules),
        rank_pattern={f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        alpha_pattern={
            f"^{re.escape(name)}": float(ranks[name] if lora.alpha is None else lora.alpha)
            for name, lora in modules.items()
        },
        init_lora_weights=False,
        inference_mode=True,
    )
    # A pointwise convolution works on tokens, as a linear layer does.
    config._register_custom_module({PointwiseConv: Linear})
    inject_adapter_in_model(config, model, adapter_name=adapter, state_dict=state)
    loaded: Any = set_peft_model_state_dict(model, state, adapter_name=adapter)
    assert not loaded.unexpected_keys  # every module was checked


def weigh_loras(model: nn.Module, weights: Mapping[str, float]) -> None:
    """Give the LoRAs of a model their weights s; those not named are off."""
    if not hasattr(model, "peft_config"):
        return
    set_weights_and_activate_adapters(model, list(weights), list(weights.values()))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(False)


def remove_loras(model: nn.Module, adapters: Iterable[str]) -> None:
    """Take LoRAs from a model; without the last one it is what it was before the first."""
    configs: Any = getattr(model, "peft_config", None)
    if configs is None:
        return
    for adapter in adapters:
        delete_adapter_layers(model, adapter)
        configs.pop(adapter, None)
    if not configs:
        recurse_remove_peft_layers(model)
        del model.peft_config
