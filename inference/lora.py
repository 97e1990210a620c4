"""LoRA in diffusers' format on the image layers of a video network (arXiv 2106.09685).

A LoRA of an image network fits a video network grown from it: its layers have the same names and
shapes. It says W + s (alpha / r) B A for some weights W; the temporal layers keep theirs.

Shape letters: r rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inference.diffusers_names import (
    DIFFUSERS_OLD_TO_PEFT,
    UNET_TO_DIFFUSERS,
    StableDiffusionLoraLoaderMixin,
    convert_state_dict,
    delete_adapter_layers,
    recurse_remove_peft_layers,
    set_weights_and_activate_adapters,
)
from training.models.grow import is_temporal
from training.models.state import MOST_NAMED, read_tensors
from training.models.transformer import PointwiseConv

WEIGHTS = "pytorch_lora_weights.safetensors"
UNET, TEXT = "unet", "text_encoder"
METADATA_KEY = "lora_adapter_metadata"
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")


@dataclass(slots=True, kw_only=True)
class LoraModule:
    """What a LoRA adds to one weight."""

    down: Tensor | None = None
    """A, ``[r, in]``, or ``[r, in, kh, kw]`` of a convolution."""
    up: Tensor | None = None
    """B, ``[out, r]``, or ``[out, r, 1, 1]`` of a convolution."""
    alpha: float | None = None
    """Numerator of the scale; r where the file does not say, as in diffusers."""


Lora = dict[str, dict[str, LoraModule]]
"""`UNET` or `TEXT` -> name of a module -> what is added to its weight."""


def read_lora(path: Path) -> Lora:
    """Read a LoRA from a file or a folder with `WEIGHTS`.

    Understood are diffusers' keys of all times (``lora_A``, ``lora.down``, ``processor.to_q_lora.down``,
    ``lora_linear_layer.down``), and kohya's, which diffusers translates.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is none of a LoRA; DoRA and other kinds are not.
    """
    file = path / WEIGHTS if path.is_dir() else path
    state: Mapping[str, Tensor] = read_tensors(file)
    alphas: dict[str, float] = {}
    if state and all(key.startswith(_KOHYA) for key in state):
        state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(dict(state))
    lora: Lora = {UNET: {}, TEXT: {}}
    unknown = []
    for key, value in state.items():
        component, name = _component(key)
        found = _TENSOR.fullmatch(_modern(component, name)) if component else None
        if found is not None:
            module = lora[component].setdefault(found["module"], LoraModule())
            setattr(module, {"A": "down", "B": "up"}[found["factor"]], value)
        elif component and name.endswith(".alpha") and value.numel() == 1:
            alphas[key] = float(value)
        else:
            unknown.append(f"unknown {key} {tuple(value.shape)}")
    _raise(unknown, f"{file} is not a LoRA for Stable Diffusion 1")
    for key, alpha in alphas.items():
        component, name = _component(key)
        lora[component].setdefault(_alpha_module(component, name), LoraModule()).alpha = alpha
    _take_metadata(lora, file)
    if not any(lora.values()):
        raise ValueError(f"{file} must hold a LoRA, it holds no tensor")
    return lora


def _component(key: str) -> tuple[str, str]:
    """Which model a key belongs to, '' if none of ours, and the key below it."""
    head, _, rest = key.partition(".")
    if head in (UNET, TEXT):
        return head, rest
    # The oldest files hold the UNet's keys without a prefix.
    is_bare = head.endswith("_blocks") or head in ("mid_block", "conv_in", "conv_out")
    return (UNET, key) if is_bare else ("", key)


def _modern(component: str, name: str) -> str:
    mapping = UNET_TO_DIFFUSERS if component == UNET else DIFFUSERS_OLD_TO_PEFT
    (modern,) = convert_state_dict({name: None}, mapping)
    return str(modern)


def _alpha_module(component: str, name: str) -> str:
    """The module of 'to_q.alpha', 'to_q.lora.alpha' or 'to_q.lora_A.weight.alpha'."""
    module = _modern(component, name.removesuffix(".alpha") + ".down.weight")
    for rest in (".down.weight", ".lora_A.weight", ".lora_A", ".lora", ".lora_linear_layer"):
        module = module.removesuffix(rest)
    return module


def _take_metadata(lora: Lora, file: Path) -> None:
    """Alphas as diffusers has written them into the file's metadata since 0.35."""
    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(file, framework="pt") as opened:
            held = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file} has metadata that is no JSON: {error}") from error
    for component, modules in lora.items():
        alpha = held.get(f"{component}.lora_alpha")
        pattern = held.get(f"{component}.alpha_pattern") or {}
        if held.get(f"{component}.use_rslora") or held.get(f"{component}.use_dora"):
            raise ValueError(
                f"{file} is a rank-stabilised LoRA or a DoRA, which are not known here"
            )
        for name, module in modules.items():
            module.alpha = pattern.get(name, alpha if module.alpha is None else module.alpha)


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
    _raise(faults, f"{source} does not fit {type(model).__name__}")


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


def _raise(lines: list[str], what: str) -> None:
    if lines:
        more = f"\n  and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
        raise ValueError(f"{what}:\n  " + "\n  ".join(lines[:MOST_NAMED]) + more)


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
