"""LoRA files as trainers write them: diffusers' keys of all times, kohya's, PEFT's own.

Shape letters: r rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.diffusers_names import (
    DIFFUSERS_OLD_TO_PEFT,
    UNET_TO_DIFFUSERS,
    StableDiffusionLoraLoaderMixin,
    convert_state_dict,
)
from training.models.state import MOST_NAMED, read_tensors

WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
UNET, TEXT = "unet", "text_encoder"
METADATA_KEY = "lora_adapter_metadata"
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>\w+))?\.weight")
_PEFT_PREFIX = "base_model.model."
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_KOHYA_TENSORS = ("lora_down.weight", "lora_up.weight", "alpha")


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
    """Read a LoRA from a file or a folder with `WEIGHTS` or `PEFT_WEIGHTS`.

    Understood are diffusers' keys of all times (``lora_A``, ``lora.down``, ``processor.to_q_lora.down``,
    ``lora_linear_layer.down``), kohya's, which diffusers translates, and PEFT's own
    (``base_model.model.``, ``lora_A.default``) with `PEFT_CONFIG` beside them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is none of a LoRA (DoRA and other kinds are not), or a number is not finite.
    """
    file = weights_file(path)
    state: Mapping[str, Tensor] = read_tensors(file)
    alphas: dict[str, float] = {}
    if state and all(key.startswith(_KOHYA) for key in state):
        state, alphas = _translated(state, file)
    lora: Lora = {UNET: {}, TEXT: {}}
    unknown, adapters = [], set()
    for key, value in state.items():
        component, name = _component(key)
        found = _TENSOR.fullmatch(_modern(component, name)) if component else None
        if found is not None:
            module = lora[component].setdefault(found["module"], LoraModule())
            setattr(module, {"A": "down", "B": "up"}[found["factor"]], value)
            adapters.add(found["adapter"])
        elif component and name.endswith(".alpha") and value.numel() == 1:
            alphas[key] = float(value)
        else:
            unknown.append(f"unknown {key} {tuple(value.shape)}")
    raise_listed(unknown, f"{file} is not a LoRA for Stable Diffusion 1")
    odd = [f"{key}: {n}" for key, value in state.items() if (n := _num_not_finite(value))]
    raise_listed(odd, f"{file} must hold finite numbers; how many of each tensor are not")
    if len(adapters) > 1:
        named = ", ".join(sorted(name or "(no name)" for name in adapters))
        raise ValueError(f"{file} must hold one adapter, it holds {named}")
    for key, alpha in alphas.items():
        component, name = _component(key)
        lora[component].setdefault(_alpha_module(component, name), LoraModule()).alpha = alpha
    _take_metadata(lora, file)
    _take_peft_config(lora, file)
    if not any(lora.values()):
        raise ValueError(f"{file} must hold a LoRA, it holds no tensor")
    return lora


def weights_file(path: Path) -> Path:
    """The file that a LoRA's path means: itself, or what diffusers or PEFT write into a folder."""
    if not path.is_dir():
        return path
    peft = path / PEFT_WEIGHTS
    return peft if peft.is_file() and not (path / WEIGHTS).is_file() else path / WEIGHTS


def raise_listed(lines: list[str], what: str) -> None:
    """Raise ValueError with the first of the lines, if there are any."""
    if lines:
        more = f"\n  and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
        raise ValueError(f"{what}:\n  " + "\n  ".join(lines[:MOST_NAMED]) + more)


def _num_not_finite(tensor: Tensor) -> int:
    return tensor.numel() - int(tensor.isfinite().sum())


def _translated(
    state: Mapping[str, Tensor], file: Path
) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """Kohya's keys as diffusers names them; what diffusers would drop or choke on is refused."""
    others = [
        f"unknown {key} {tuple(value.shape)}"
        for key, value in state.items()
        if key.partition(".")[2] not in _KOHYA_TENSORS
    ]
    raise_listed(others, f"{file} is a DoRA, LoHa, LoKr or another kind that is no plain LoRA")
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(dict(state))
    return state, alphas


def _component(key: str) -> tuple[str, str]:
    """Which model a key belongs to, '' if none of ours, and the key below it."""
    head, _, rest = key.partition(".")
    if head in (UNET, TEXT):
        return head, rest.removeprefix(_PEFT_PREFIX)
    bare = key.removeprefix(_PEFT_PREFIX)
    head = bare.partition(".")[0]
    if head == "text_model":
        return TEXT, bare
    # The oldest files, and PEFT's of a network alone, hold the UNet's keys without a prefix.
    is_unet = head.endswith("_blocks") or head in (
        "mid_block",
        "conv_in",
        "conv_out",
        "time_embedding",
    )
    return (UNET, bare) if is_unet else ("", key)


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
    if not isinstance(held, dict):
        raise ValueError(f"{file} must have an object as {METADATA_KEY}, got {held!r:.80}")
    for component, modules in lora.items():
        prefix = f"{component}."
        said = {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}
        _take_settings(modules, said, str(file))


def _take_peft_config(lora: Lora, file: Path) -> None:
    """Alphas of the settings that PEFT writes beside its weights."""
    settings = file.with_name(PEFT_CONFIG)
    if file.name != PEFT_WEIGHTS or not settings.is_file():
        return
    try:
        held = json.loads(settings.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{settings} is no JSON: {error}") from error
    if not isinstance(held, dict) or held.get("peft_type") != "LORA":
        kind = held.get("peft_type") if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{settings} must be of peft_type LORA, got {kind}")
    for modules in lora.values():
        _take_settings(modules, held, str(settings))


def _take_settings(modules: Mapping[str, LoraModule], held: Mapping[str, Any], source: str) -> None:
    """Give modules the alpha that PEFT's settings have for them.

    Raises:
        ValueError: The settings are of another kind than LoRA.
    """
    from peft.utils.other import get_pattern_key

    if held.get("use_rslora") or held.get("use_dora"):
        raise ValueError(f"{source} is a rank-stabilised LoRA or a DoRA, which are not known here")
    common, pattern = held.get("lora_alpha"), held.get("alpha_pattern") or {}
    said = [common, *pattern.values()] if isinstance(pattern, dict) else [pattern]
    if odd := [alpha for alpha in said if not isinstance(alpha, int | float | None)]:
        raise ValueError(f"{source} must have numbers as alphas, got {odd[0]!r:.80}")
    for name, module in modules.items():
        alpha = common if module.alpha is None else module.alpha
        module.alpha = pattern.get(get_pattern_key(list(pattern), name), alpha)
