"""Personalised video: a subject or a style learned on images, put into a video network.

LaVie's paper (arXiv 2309.15103, section 5.4) trains a LoRA on the image layers and keeps the temporal
layers as they are. The same holds for whatever else image models are personalised with: other image
weights under the same temporal layers (DreamBooth, fine-tunes of Stable Diffusion 1), and new words for
the text encoder (Textual Inversion, arXiv 2208.01618).

Shape letters: N vectors of a word, B prompts, L tokens, D text width.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.diffusers_names import TextualInversionLoaderMixin, convert_ldm_unet_checkpoint
from inference.lora import check_lora, inject_lora, remove_loras, weigh_loras
from inference.lora_file import TEXT, UNET, read_lora
from training.models.exported import ExportedModel
from training.models.grow import WEIGHTS, config_of_image_network, is_temporal
from training.models.state import check_keys, read_safetensors, read_tensors
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet

NAME = re.compile(r"[A-Za-z0-9_-]+")
# Where single files in Stable Diffusion's original naming keep their two networks.
ORIGINAL_UNET = "model.diffusion_model."
ORIGINAL_TEXT = "cond_stage_model.transformer."


def load_spatial_weights(net: UNet, image_network: Path) -> None:
    """Replace the image layers of a video network; its temporal layers stay.

    Args:
        net: The network, changed in place; number format and place stay its own.
        image_network: A UNet of Stable Diffusion 1's size: its folder or file in diffusers' naming, the
            folder of a whole pipeline with ``unet/`` in it, or a single file of a whole model in the
            original naming.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Settings, keys or shapes are another network's; the message names them. Nothing was
            changed then.
    """
    folder = image_network / "unet" if (image_network / "unet").is_dir() else image_network
    file = folder / WEIGHTS if folder.is_dir() else folder
    image = read_tensors(file)
    if any(key.startswith(ORIGINAL_UNET) for key in image):
        image = _in_diffusers_naming(image, net)
    else:
        _check_settings(net, file.with_name("config.json"))
    held = net.state_dict()
    if any(".base_layer." in key for key in held):
        raise ValueError("unload the LoRAs before image weights are replaced")
    check_keys(
        {key: value for key, value in held.items() if not is_temporal(key)},
        image,
        f"the image network of {file}",
    )
    with torch.no_grad():
        for key, value in image.items():
            held[key].copy_(value)


def _in_diffusers_naming(whole: Mapping[str, Tensor], net: UNet) -> dict[str, Tensor]:
    """The UNet of a whole model in the original naming, under diffusers' names."""
    unet = {key: value for key, value in whole.items() if key.startswith(ORIGINAL_UNET)}
    settings = {"layers_per_block": net.config.layers_per_block}
    converted: dict[str, Tensor] = convert_ldm_unet_checkpoint(unet, settings)
    return converted


def _check_settings(net: UNet, settings: Path) -> None:
    if not settings.is_file():
        return
    config = config_of_image_network(json.loads(settings.read_text("utf-8")), net.config)
    wrong = [
        f"{name} is {getattr(config, name)}, expected {getattr(net.config, name)}"
        for name in type(config).__slots__
        if getattr(config, name) != getattr(net.config, name)
    ]
    if wrong:
        raise ValueError(f"the image network of {settings} does not fit: {'; '.join(wrong)}")


def _load_tower(tower: Any, file: Path) -> None:
    """Fill a text tower from a single file of a whole model in the original naming."""
    drop = ORIGINAL_TEXT if hasattr(tower, "text_model") else f"{ORIGINAL_TEXT}text_model."
    state = {
        key.removeprefix(drop): value
        for key, value in read_tensors(file).items()
        if key.startswith(ORIGINAL_TEXT) and not key.endswith(".position_ids")  # a constant
    }
    held = tower.state_dict()
    check_keys(held, state, f"the text encoder of {file}")
    with torch.no_grad():
        for key, value in state.items():
            held[key].copy_(value)


def read_textual_inversion(path: Path) -> tuple[str | None, Tensor]:
    """A learned word and its vectors ``[N, D]`` from a file.

    Args:
        path: ``.safetensors``; or ``.pt`` or ``.bin``, read with ``weights_only=True``. Forms: one tensor
            under the word (diffusers), "string_to_param" and "name" or "emb_params" (web UIs).

    Returns:
        The word, or None where the file does not say it; and the vectors in fp32.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else.
    """
    held = _held(path)
    if "string_to_param" in held:
        word, vectors = held.get("name"), dict(held["string_to_param"]).get("*")
    elif set(held) == {"emb_params"}:
        word, vectors = None, held["emb_params"]
    elif len(held) == 1:
        ((word, vectors),) = held.items()
    else:
        raise ValueError(f"{path} must hold one learned word, got {sorted(held)[:10]}")
    if not isinstance(vectors, Tensor) or vectors.ndim not in (1, 2) or vectors.numel() == 0:
        raise ValueError(f"{path} must hold vectors [N, D] of a word, got {type(vectors).__name__}")
    vectors_ND = vectors.detach().float().reshape(-1, vectors.shape[-1])
    if not vectors_ND.isfinite().all():
        raise ValueError(f"the vectors of {path} must be finite, got NaN or infinity")
    return word, vectors_ND


def _held(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no learned word at {path}")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no file of tensors alone and is not loaded") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} must hold a dictionary, got {type(held).__name__}")
    return held


class Personalised(TextualInversionLoaderMixin):
    """What a pipeline can be personalised with; inherit it before `VideoPipeline`."""

    unet: UNet
    text_encoder: Any
    tokenizer: Any
    _loras: Mapping[str, float] = {}
    """Name of each loaded LoRA -> its weight; never changed in place."""

    @property
    def lora_weights(self) -> Mapping[str, float]:
        """Name of each loaded LoRA and its weight, in the order of loading."""
        return dict(self._loras)

    def load_lora_weights(
        self, path: str | Path, adapter_name: str | None = None, *, weight: float = 1.0
    ) -> str:
        """Load a LoRA beside those that are loaded, for the network and, if it has any, the text tower.

        Args:
            path: Its file, or a folder with ``pytorch_lora_weights.safetensors``.
            adapter_name: What to call it; ``lora_0``, ``lora_1``, ... by default.
            weight: s of W + s (alpha / r) B A; `set_adapters` changes it.

        Returns:
            Its name.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The name is taken, or the LoRA is for another network; nothing was changed.
        """
        name = f"lora_{len(self._loras)}" if adapter_name is None else adapter_name
        if not NAME.fullmatch(name):
            raise ValueError(f"adapter_name must be of letters, digits, '_', '-', got {name!r}")
        if name in self._loras:
            raise ValueError(f"adapter_name must be new, {name!r} is loaded")
        lora = read_lora(Path(path))
        flat = not hasattr(self.text_encoder, "text_model")  # transformers 5 dropped the level
        if flat:
            lora[TEXT] = {key.removeprefix("text_model."): m for key, m in lora[TEXT].items()}
        models = {UNET: self.unet, TEXT: self.text_encoder}
        for component, modules in lora.items():
            check_lora(models[component], modules, f"LoRA {path}")
        for component, modules in lora.items():
            if modules:
                inject_lora(models[component], modules, name)
        self._weigh({**self._loras, name: weight})
        return name

    def set_adapters(
        self, adapter_names: str | Sequence[str], weights: float | Sequence[float] | None = None
    ) -> None:
        """Choose which LoRAs act, and how strongly; the others stay loaded at weight 0.

        Args:
            adapter_names: One name or several.
            weights: One for all, or one each; 1 by default.

        Raises:
            ValueError: A name is not loaded, or names and weights do not pair up.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        unknown = sorted(set(names) - set(self._loras))
        if unknown:
            raise ValueError(f"adapter_names must be loaded ({list(self._loras)}), got {unknown}")
        given = 1.0 if weights is None else weights
        each = list(given) if isinstance(given, Sequence) else [given] * len(names)
        if len(each) != len(names) or len(set(names)) != len(names):
            raise ValueError(f"weights must be one for each name, got {names} and {each}")
        self._weigh({**dict.fromkeys(self._loras, 0.0), **dict(zip(names, each, strict=True))})

    def unload_lora_weights(self) -> None:
        """Remove all LoRAs; the models are what they were before the first."""
        for model in (self.unet, self.text_encoder):
            remove_loras(model, self._loras)
        self._loras = {}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Remove some LoRAs, by name."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        unknown = sorted(set(names) - set(self._loras))
        if unknown:
            raise ValueError(f"adapter_names must be loaded ({list(self._loras)}), got {unknown}")
        for model in (self.unet, self.text_encoder):
            remove_loras(model, names)
        self._weigh({name: w for name, w in self._loras.items() if name not in names})

    def _weigh(self, weights: Mapping[str, float]) -> None:
        for model in (self.unet, self.text_encoder):
            weigh_loras(model, weights)
        self._loras = weights

    def load_spatial_weights(self, image_network: str | Path) -> None:
        """Replace the image layers; see the function of this name."""
        load_spatial_weights(self.unet, Path(image_network))
        self.origin = f"{getattr(self, 'origin', '')}; image layers of {Path(image_network).name}"

    def load_text_encoder(self, model: str | Path) -> None:
        """Take the text tower of an image model, such as a DreamBooth model that trained it.

        Args:
            model: Folder with ``text_encoder/`` and ``tokenizer/``, which takes the tokenizer too; or a
                single file of a whole model in the original naming.

        Raises:
            FileNotFoundError: There is no such file, or the folder lacks something.
            ValueError: It is another text tower, or LoRAs are loaded; nothing was changed.
        """
        if self._loras:
            raise ValueError("unload the LoRAs before the text encoder is replaced")
        if not Path(model).is_dir():
            _load_tower(self.text_encoder, Path(model))
            return
        loaded = TextEncoder.load(Path(model))
        width = int(self.text_encoder.config.hidden_size)
        if loaded.width != width:
            raise ValueError(f"the text encoder must be {width} wide, got {loaded.width}")
        tower = loaded.tower.to(self.text_encoder.device, self.text_encoder.dtype)
        self.register_modules(text_encoder=tower, tokenizer=loaded.tokenizer)  # type: ignore[attr-defined]

    def load_textual_inversion(  # type: ignore[override]
        self, path: str | Path, token: str | None = None
    ) -> str:
        """Teach tokenizer and text tower a word that was learned from pictures.

        Args:
            path: As of `read_textual_inversion`.
            token: The word to use in prompts; by default the file's own.

        Returns:
            The word. One with several vectors is written once in a prompt and read as all of them.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The word is known already, or the vectors are another text encoder's.
        """
        named, vectors_ND = read_textual_inversion(Path(path))
        word = token or named
        if not word or word != word.strip() or " " in word:
            raise ValueError(f"token must be one word, got {word!r} for {path}")
        if not hasattr(self.text_encoder, "get_input_embeddings"):
            raise ValueError(
                f"the word of {path} needs a CLIP text tower, got {type(self.text_encoder).__name__}"
            )
        width = self.text_encoder.get_input_embeddings().weight.shape[-1]
        if vectors_ND.shape[1] != width:
            raise ValueError(
                f"the word of {path} must have vectors of {width} numbers, "
                f"got {vectors_ND.shape[1]}: it was learned for another text encoder"
            )
        super().load_textual_inversion({word: vectors_ND}, token=word)
        self.text_encoder.requires_grad_(False)
        return word

    def exported(self) -> ExportedModel:
        """The pipeline's models as training exports them.

        Raises:
            ValueError: LoRAs are loaded; they are files of their own and are not saved into a model.
        """
        if self._loras:
            raise ValueError(f"unload the LoRAs before saving, loaded are {list(self._loras)}")
        return super().exported()  # type: ignore[misc]

    def _text_states(
        self, prompts: Sequence[str], negatives: Sequence[str], *, guided: bool
    ) -> Tensor:
        """`VideoPipeline._text_states` of prompts whose learned words stand for all their vectors."""
        spelled = [
            [self.maybe_convert_prompt(text, self.tokenizer) for text in texts]
            for texts in (prompts, negatives)
        ]
        return super()._text_states(*spelled, guided=guided)  # type: ignore[misc]
