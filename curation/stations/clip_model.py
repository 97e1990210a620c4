"""A CLIP model of open_clip: which weights it takes, and loading it without any download.

open_clip itself fetches what it misses and only warns where a checkpoint was trained with another
activation ("QuickGELU mismatch"); here the file is looked for by `curation.weights.catalog`, and
architecture and preprocessing follow what open_clip's table says of the tag.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curation.errors import MissingWeights
from curation.weights.catalog import OPEN_CLIP, Weight, find, weight_at
from curation.weights.torchvision_shim import ensure_torchvision

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]

_FOLDER_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
"""What a model folder holds, as open_clip's `push_to_hf_hub` and the hub's repositories have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipModel:
    """Which CLIP."""

    architecture: str = "ViT-L-14"
    """open_clip's name, such as 'ViT-B-32' or 'ViT-L-14'; or the path, with a '/' in
    it, of a folder with open_clip_config.json and open_clip_model.safetensors."""
    pretrained: str = "openai"
    """open_clip's tag of the weights; names the activation and normalisation even where the file is
    given as a path. Unused for a folder."""
    checkpoint: str = ""
    """Path of the weights; empty to look for those of the tag (`lavie weights list`)."""
    precision: Precision = "fp32"
    """Number format of the weights. On a GPU take bf16. On a CPU it depends on the chip: ViT-B/32
    in bf16 was 4 times faster than in fp32 where there are bf16 instructions, and 7 times slower
    (1.09 against 0.16 CPU-s a picture) on one with AVX2 only. fp16 is for GPUs."""

    def __post_init__(self) -> None:
        if not self.architecture:
            raise ValueError("clip.architecture must name an architecture or folder, got ''")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(
                f"clip.precision must be 'fp32', 'bf16' or 'fp16', got {self.precision!r}"
            )
        if self.folder and self.checkpoint:
            raise ValueError(
                f"clip.checkpoint must be empty where clip.architecture is a folder, "
                f"got {self.checkpoint!r}"
            )

    @property
    def folder(self) -> str:
        """The model folder, or '' where the architecture is one of open_clip's names."""
        return self.architecture if "/" in self.architecture else ""

    @property
    def label(self) -> str:
        """Value of the column `embedding_model`: 'ViT-L-14/openai', or the folder's name."""
        return Path(self.folder).name if self.folder else f"{self.architecture}/{self.pretrained}"

    def weights(self) -> Sequence[Weight]:
        """The files to load.

        Raises:
            MissingWeights: if the tag is not one that we know and no path is given.
        """
        if self.folder:
            return [weight_at(Path(self.folder) / name) for name in _FOLDER_FILES]
        if self.checkpoint:
            return [weight_at(self.checkpoint)]
        known = OPEN_CLIP.get((self.architecture, self.pretrained))
        if known is None:
            offered = ", ".join("/".join(key) for key in OPEN_CLIP)
            raise MissingWeights(
                f"no source of weights is known for CLIP {self.label} (known: {offered}); "
                f"give clip.checkpoint, or a folder as clip.architecture"
            )
        return [known]


class LoadedClip(NamedTuple):
    """A model ready to be asked."""

    model: Any
    """open_clip.CLIP in evaluation mode."""
    preprocess: Any
    """RGB picture -> normalised tensor ``[C, H, W]``."""
    tokenizer: Any
    """Texts -> token ids ``[B, L]``."""
    device: Any
    """torch.device that the model is on."""
    dtype: Any
    """torch.dtype that pictures must have."""


def load_clip(clip: ClipModel) -> LoadedClip:
    """Load a CLIP onto the GPU that this process was given, else the CPU.

    Raises:
        MissingWeights: if a file is not there.
    """
    ensure_torchvision()
    import open_clip
    import torch
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and clip.precision != "fp32":
        chip = torch.backends.cpu.get_cpu_capability()
        if not chip.startswith("AVX512"):
            logger.warning("%s on a CPU with %s only is slower than fp32", clip.precision, chip)
    files = [find(weight) for weight in clip.weights()]
    if clip.folder:
        name, options = f"local-dir:{clip.folder}", {}
    else:
        trained = get_pretrained_cfg(clip.architecture, clip.pretrained)
        name = clip.architecture
        options = {
            "pretrained": str(files[0]),
            "force_quick_gelu": bool(trained.get("quick_gelu", False)),
            "force_preprocess_cfg": {
                key: trained[key]
                for key in ("mean", "std", "interpolation", "resize_mode")
                if trained.get(key) is not None
            },
        }
    model = open_clip.create_model(
        name, precision=clip.precision, device=device, weights_only=True, **options
    ).eval()
    cfg = PreprocessCfg(**model.visual.preprocess_cfg)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[clip.precision]
    return LoadedClip(
        model=model,
        preprocess=image_transform_v2(cfg, is_train=False),
        tokenizer=open_clip.get_tokenizer(name),
        device=device,
        dtype=dtype,
    )


class ClipText:
    """CLIP's text tower: texts to unit vectors ``[B, D]``; text over its 77 tokens is cut off."""

    def __init__(self, clip: ClipModel) -> None:
        self._clip = load_clip(clip)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed some texts."""
        import torch

        with torch.inference_mode():
            tokens_BL = self._clip.tokenizer(list(texts)).to(self._clip.device)
            texts_BD = self._clip.model.encode_text(tokens_BL).float()
            units_BD: NDArray[np.float32] = (
                (texts_BD / texts_BD.norm(dim=1, keepdim=True)).cpu().numpy()
            )
        return units_BD
