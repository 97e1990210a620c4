"""Station `taxonomy`: what kind of film a clip is, and what it shows.

Two engines, neither of which opens a picture: `clip` compares the stored embeddings with sentences
that name Vimeo's ten categories (zero-shot classification, arXiv 2103.00020, section 3.1);
`imagenet` runs the classifier of EfficientNet-Lite0 over the stored features. A classifier is a
linear layer over the pooled features, and `frame_embeddings` times `frame_norms` is those features.

Letters: N pictures, K categories or classes, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.corpus.schema import layer_schema
from curation.errors import MissingColumn
from curation.stations.clip_model import ClipModel, load_clip
from curation.stations.station import Resources, Station
from curation.weights.catalog import EFFICIENTNET_LITE0, Weight, find
from curation.weights.torchvision_shim import ensure_torchvision

CATEGORIES: dict[str, tuple[str, ...]] = {
    "Ads and Commercials": ("an advertisement", "a product commercial"),
    "Animation": ("an animated film", "a cartoon", "a computer-generated animation"),
    "Branded Content": ("a corporate brand film", "a promotional company video"),
    "Comedy": ("a comedy", "a funny sketch"),
    "Documentary": ("a documentary", "an interview"),
    "Experimental": ("an experimental art film", "abstract video art"),
    "Music": ("a music video", "a concert performance"),
    "Narrative": ("a narrative short film", "a drama scene with actors"),
    "Sports": ("a sports video", "athletes in action"),
    "Travel": ("a travel video", "a landscape seen on a journey"),
}
"""Vimeo's ten (arXiv 2309.15103, section 5.1) -> how each looks, in words; the words are ours."""

TEMPLATES = ("a still from {}.", "a video frame of {}.", "a scene of {}.", "{}.")
"""Sentences around the words; averaging over several is the paper's prompt ensembling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxonomyConfig:
    """Settings of the station."""

    engine: Literal["clip", "imagenet"] = "clip"
    """'clip' gives one of Vimeo's ten categories, 'imagenet' tags of ImageNet's 1000 classes."""
    clip: ClipModel = field(default_factory=ClipModel)
    """The CLIP that made the embeddings; unused by the other engine."""
    num_tags: int = 5
    """Tags kept at most; five, as ImageNet's usual measure looks at."""
    min_tag_score: float = 0.05
    """Mean probability from which a tag is kept, 0..1; fifty times that of a guess."""
    num_threads: int = 1
    """Processor threads of one worker; the last digits depend on it."""

    def __post_init__(self) -> None:
        if self.engine not in ("clip", "imagenet"):
            raise ValueError(f"taxonomy.engine must be 'clip' or 'imagenet', got {self.engine!r}")
        if not 1 <= self.num_tags <= 1000:
            raise ValueError(f"taxonomy.num_tags must lie in 1..1000, got {self.num_tags}")
        if not 0 <= self.min_tag_score <= 1:
            raise ValueError(f"taxonomy.min_tag_score must lie in 0..1, got {self.min_tag_score}")
        if self.num_threads < 1:
            raise ValueError(f"taxonomy.num_threads must be at least 1, got {self.num_threads}")


def softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over K."""
    powers_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    probabilities_NK: NDArray[np.float32] = powers_NK / powers_NK.sum(axis=1, keepdims=True)
    return probabilities_NK


def imagenet_names() -> list[str]:
    """The 1000 class names in the order of the classifier, as torchvision lists them."""
    ensure_torchvision()
    from torchvision.models import EfficientNet_B0_Weights

    return list(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


class Taxonomy(Station[TaxonomyConfig]):
    """Adds `category`, `category_score`, `tags` and `tag_scores`."""

    name = "taxonomy"
    version = 1
    config_class = TaxonomyConfig
    needs = ("frame_embeddings", "frame_norms", "embedding_model")

    @property
    def resources(self) -> Resources:
        """What one worker takes; the text tower comes with the whole CLIP."""
        is_clip = self.config.engine == "clip"
        return Resources(cpus=self.config.num_threads, memory_bytes=(4 if is_clip else 1) * 1024**3)

    @property
    def accepts(self) -> Mapping[str, Sequence[str]]:
        """The network whose embeddings it reads."""
        is_clip = self.config.engine == "clip"
        return {"embedding_model": (self.config.clip.label if is_clip else "efficientnet-lite0",)}

    def weights(self) -> Sequence[Weight]:
        """The network whose embeddings it reads."""
        if self.config.engine == "clip":
            return self.config.clip.weights()
        return [EFFICIENTNET_LITE0]

    def setup(self) -> None:
        """Make the linear layer ``[K, D]`` that the engine amounts to."""
        import torch

        torch.set_num_threads(self.config.num_threads)
        if self.config.engine == "clip":
            self._names = list(CATEGORIES)
            self._weight_KD = _category_directions(self.config.clip)
            self._bias_K = np.zeros(len(self._names), np.float32)
        else:
            self._names = imagenet_names()
            self._weight_KD, self._bias_K = _lite0_classifier()

    def probabilities(
        self, units_ND: NDArray[np.float32], norms_N: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Mean over a clip's keyframes of the probability of each name, ``[K]``."""
        if self.config.engine == "imagenet":
            units_ND = units_ND * norms_N[:, None]
        mean_K: NDArray[np.float32] = softmax(units_ND @ self._weight_KD.T + self._bias_K).mean(0)
        return mean_K

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Classify every clip.

        Raises:
            MissingColumn: if the embeddings are those of another network.
        """
        (wanted,) = self.accepts["embedding_model"]
        for model in clips["embedding_model"].unique().to_pylist():
            if model != wanted:
                raise MissingColumn(
                    f"taxonomy.engine {self.config.engine!r} reads embeddings of {wanted!r}, "
                    f"these are of {model!r}"
                )
        rows = [
            self._row(units, norms)
            for units, norms in zip(
                clips["frame_embeddings"].to_pylist(), clips["frame_norms"].to_pylist(), strict=True
            )
        ]
        columns = list(zip(*rows, strict=True)) if rows else [()] * 4
        schema = layer_schema(self.name)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, list(schema)[1:], strict=True)
        ]
        return pa.Table.from_arrays([clips["clip_id"], *arrays], schema=schema)

    def _row(
        self, units: list[list[float]], norms: list[float]
    ) -> tuple[str | None, float | None, list[str], list[float]]:
        """Category, its probability, tags, their probabilities of one clip."""
        if not units:
            return None, None, [], []
        mean_K = self.probabilities(np.asarray(units, np.float32), np.asarray(norms, np.float32))
        # A stable sort: of two equal probabilities the earlier class comes first, always.
        order = np.argsort(-mean_K, kind="stable")
        if self.config.engine == "clip":
            return self._names[order[0]], float(mean_K[order[0]]), [], []
        kept = [k for k in order[: self.config.num_tags] if mean_K[k] >= self.config.min_tag_score]
        return None, None, [self._names[k] for k in kept], [float(mean_K[k]) for k in kept]


def _category_directions(clip: ClipModel) -> NDArray[np.float32]:
    """Mean direction of each category's sentences times CLIP's trained scale, ``[K, D]``."""
    import torch

    loaded = load_clip(clip)
    rows = []
    with torch.inference_mode():
        for words in CATEGORIES.values():
            sentences = [template.format(word) for template in TEMPLATES for word in words]
            tokens_BL = loaded.tokenizer(sentences).to(loaded.device)
            texts_BD = loaded.model.encode_text(tokens_BL).float()
            mean_D = (texts_BD / texts_BD.norm(dim=1, keepdim=True)).mean(dim=0)
            rows.append(mean_D / mean_D.norm())
        scale = loaded.model.logit_scale.exp().float()
        directions_KD: NDArray[np.float32] = (torch.stack(rows) * scale).cpu().numpy()
    return directions_KD


def _lite0_classifier() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight ``[1000, 1280]`` and bias ``[1000]`` of EfficientNet-Lite0's last layer."""
    import torch

    state: dict[str, Any] = torch.load(
        find(EFFICIENTNET_LITE0), map_location="cpu", weights_only=True
    )
    return state["_fc.weight"].numpy(), state["_fc.bias"].numpy()
