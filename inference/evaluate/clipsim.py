"""CLIPSIM (arXiv 2104.14806, section 4.1): how well the frames of a video fit its caption.

Shape letters: T frames, H W pixels, C channels, L tokens, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

FRAMES_AT_ONCE = 64  # of one pass through CLIP: 64 x 3 x 224 x 224 float32 are 39 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScorer:
    """A CLIP model that is ready to be asked.

    Load one with open_clip, torchvision's shim first (`curation.stations.clip_model.load_clip` does both).
    """

    model: Any
    """open_clip.CLIP in evaluation mode."""
    preprocess: Any
    """RGB picture to normalised tensor ``[C, H, W]``: the model's own resizing and cropping."""
    tokenizer: Any
    """Texts to token ids ``[B, L]``."""
    device: torch.device
    """Where the model is."""
    dtype: torch.dtype
    """Number format of its pictures."""
    name: str
    """Architecture and weights, such as 'ViT-B-32/openai'; goes into the result file."""
    sha256: Mapping[str, str]
    """Digests of the files it was loaded from; they go into the result file."""

    @torch.inference_mode()
    def clipsim(self, frames_THWC: NDArray[np.uint8], caption: str) -> float:
        """Mean over frames of the cosine between frame and caption, -1 to 1.

        Args:
            frames_THWC: RGB frames, uint8 ``[T, H, W, 3]``, T >= 1.
            caption: The text; what goes beyond the model's number of tokens is not read.
        """
        text_1D = self._unit(self.model.encode_text(self.tokenizer([caption]).to(self.device)))
        cosines = [
            self._unit(self.model.encode_image(pictures)) @ text_1D[0]
            for pictures in self._pictures(frames_THWC).split(FRAMES_AT_ONCE)
        ]
        return float(torch.cat(cosines).mean())

    def _pictures(self, frames_THWC: NDArray[np.uint8]) -> Tensor:
        pictures = [self.preprocess(Image.fromarray(frame_HWC)) for frame_HWC in frames_THWC]
        return torch.stack(pictures).to(self.device, self.dtype)

    @staticmethod
    def _unit(embedding: Tensor) -> Tensor:
        """Unit vectors in float64, so that summing over frames adds no error."""
        return functional.normalize(embedding.double(), dim=-1)
