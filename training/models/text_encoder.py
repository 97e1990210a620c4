"""From prompts to text states: the frozen CLIP text towers of LaVie.

Base and interpolation use CLIP ViT-L/14's (Stable Diffusion 1.4's, 768 wide), super-resolution
OpenCLIP ViT-H's without its last layer (the x4 upscaler's, 1024 wide). Both read 77 tokens.

Shape letters: B prompts, L tokens, D width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curation.weights.torchvision_shim import ensure_torchvision


class TextEncoder(nn.Module):
    """A frozen text tower with its tokenizer.

    Args:
        tower: A transformers ``CLIPTextModel``.
        tokenizer: The transformers tokenizer that belongs to it; it says how prompts are padded.
    """

    def __init__(self, tower: Any, tokenizer: Any) -> None:
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Read ``text_encoder/`` (safetensors) and ``tokenizer/`` of a folder, in fp32."""
        ensure_torchvision()
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
        return int(self.tower.config.max_position_embeddings)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states after the final layer norm, ``[B, L, D]``; padding is not masked."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a non-empty sequence of strings, got {prompts!r}")
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.num_tokens,
            truncation=True,
            return_tensors="pt",
        )
        ids, device = tokens.input_ids, self.tower.device
        if device.type == "cuda":  # from pageable memory the host would wait for the copy
            ids = ids.pin_memory()
        states: Tensor = self.tower(ids.to(device, non_blocking=True)).last_hidden_state
        return states
