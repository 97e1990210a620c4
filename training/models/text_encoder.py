"""From prompts to text states: the frozen text towers.

Base and interpolation use CLIP ViT-L/14's (Stable Diffusion 1.4's, 768 wide), super-resolution
OpenCLIP ViT-H's without its last layer (the x4 upscaler's, 1024 wide). Both read 77 tokens. Small
cascades use a sentence encoder (`training.models.sentence_encoder`). Which one a folder holds is told
by its config.json.

Shape letters: B prompts, L tokens, D width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curation.weights.torchvision_shim import ensure_torchvision
from training.models.sentence_encoder import (
    SentenceEncoder,
    is_sentence_encoder,
    load_sentence_encoder,
)


def read_text_width(folder: Path) -> int:
    """Width of the states of a folder's text encoder, from its config.json alone.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is that of something else.
    """
    path = folder / "text_encoder" / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no text encoder in {folder}: text_encoder/config.json is missing")
    values = json.loads(path.read_text(encoding="utf-8"))
    width = values.get("shape", values).get("hidden_size")
    if not isinstance(width, int):
        raise ValueError(f"{path} must name hidden_size, got {width!r}")
    return width


class TextEncoder(nn.Module):
    """A frozen text tower with its tokenizer.

    Args:
        tower: A transformers ``CLIPTextModel``, or a `SentenceEncoder`.
        tokenizer: The transformers tokenizer that belongs to it; it says how prompts are padded, and to
            which length.
    """

    def __init__(self, tower: Any, tokenizer: Any) -> None:
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Read ``text_encoder/`` (safetensors) and ``tokenizer/`` of a folder, in fp32.

        Raises:
            FileNotFoundError: One of them is not there.
            MissingWeights: A sentence encoder's tensors are not on this machine.
        """
        ensure_torchvision()
        if is_sentence_encoder(folder):
            return cls(*load_sentence_encoder(folder))
        from transformers import CLIPTextModel, CLIPTokenizer

        for name in ("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"no text encoder in {folder}: {name} is missing")
        tower = CLIPTextModel.from_pretrained(
            folder / "text_encoder",
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        return cls(tower, tokenizer)

    def save(self, folder: Path) -> None:
        """Write ``text_encoder/`` and ``tokenizer/`` below a folder."""
        self.tower.save_pretrained(folder / "text_encoder", safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")

    @property
    def width(self) -> int:
        """D, the width of the states."""
        return int(self.tower.config.hidden_size)

    @property
    def num_tokens(self) -> int:
        """L, to which every prompt is padded or cut."""
        most: int = min(self.tokenizer.model_max_length, self.tower.config.max_position_embeddings)
        return most

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states after the final layer norm, ``[B, L, D]``.

        CLIP's towers do not mask padding, so it has states too; a sentence encoder's are zero there.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a non-empty sequence of strings, got {prompts!r}")
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.num_tokens,
            truncation=True,
            return_tensors="pt",
        )
        ids_BL = self._on_device(tokens.input_ids)
        if isinstance(self.tower, SentenceEncoder):
            masked: Tensor = self.tower(ids_BL, self._on_device(tokens.attention_mask))
            return masked
        states: Tensor = self.tower(ids_BL).last_hidden_state
        return states

    def _on_device(self, tokens_BL: Tensor) -> Tensor:
        """Numbers from the tokenizer beside the tower; from pageable memory the host would wait for it."""
        device: torch.device = self.tower.device
        pinned = tokens_BL.pin_memory() if device.type == "cuda" else tokens_BL
        return pinned.to(device, non_blocking=True)
