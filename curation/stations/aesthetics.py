"""Station `aesthetics`: how pleasing the keyframes are, by LAION's heads over CLIP embeddings.

v1 is a linear layer (github.com/LAION-AI/aesthetic-predictor), v2 a stack of linear layers without
activations between them (github.com/christophschuhmann/improved-aesthetic-predictor), both trained
on unit-length embeddings of OpenAI's CLIP against ratings of 1 to 10. LaVie's figure 7 shows such
scores. Under 0.1 CPU-ms a keyframe.

Letters: N pictures, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus.schema import layer_schema
from curation.errors import LavieError, MissingColumn
from curation.stations.keyframe_images import reduced
from curation.stations.station import Station
from curation.weights.catalog import (
    LAION_V1_B32,
    LAION_V1_L14,
    LAION_V2_L14,
    Weight,
    find,
    weight_at,
)


class Head(NamedTuple):
    """One published head."""

    weight: Weight
    width: int
    """Numbers in the embedding that it reads."""
    embedding_model: str
    """The only network whose embeddings it was trained on."""


HEADS: dict[str, Head] = {
    "v1_b32": Head(LAION_V1_B32, 512, "ViT-B-32/openai"),
    "v1_l14": Head(LAION_V1_L14, 768, "ViT-L-14/openai"),
    "v2_l14": Head(LAION_V2_L14, 768, "ViT-L-14/openai"),
}
"""Name in the settings -> head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AestheticsConfig:
    """Settings of the station."""

    head: Literal["v1_b32", "v1_l14", "v2_l14"] = "v2_l14"
    """Which of LAION's heads. v2 ("improved aesthetic predictor") is the one whose scores published
    recipes quote (4.5 to 6.5); v1 runs wider, from below 0 to above 10. Unused with checkpoint."""
    checkpoint: str = ""
    """Path of a head of your own, .pth in LAION's format, on every machine; empty for LAION's."""
    trained_on: str = ""
    """Network whose embeddings the head of checkpoint was trained on, as the column embedding_model says:
    'ViT-B-32/laion2b_s34b_b79k', or the name of a model folder."""

    def __post_init__(self) -> None:
        if bool(self.checkpoint) != bool(self.trained_on):
            raise ValueError(
                "aesthetics.checkpoint and aesthetics.trained_on go together, got "
                f"{self.checkpoint!r} and {self.trained_on!r}"
            )
        if self.head not in HEADS:
            raise ValueError(
                f"aesthetics.head must be one of {', '.join(HEADS)}, got {self.head!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedHead:
    """What names the layer of one of LAION's heads; its weights stand beside."""

    head: str
    """Name in `HEADS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHead:
    """What names the layer of a head of the user's; its weights stand beside, not where they lie."""

    trained_on: str
    """Network whose embeddings it reads."""


class LinearHead(NamedTuple):
    """``score = w . x + b``."""

    coefficients: NDArray[np.float32]
    """w, ``[D]``."""
    bias: float

    def __call__(self, units_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores ``[N]`` of unit-length embeddings ``[N, D]``."""
        scores: NDArray[np.float32] = units_ND @ self.coefficients + np.float32(self.bias)
        return scores


def load_head(path: Path, *, width: int | None = None) -> LinearHead:
    """Read a head's .pth, never running what it holds.

    v2's layers have no activation between them (dropout is off outside training), so their product
    is one linear map: multiplied out here in float64.

    Args:
        path: of the file.
        width: numbers that it must read; those of its first layer if not given.

    Raises:
        ValueError: if the file's layers do not lead from ``width`` numbers to one.
    """
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    names = sorted(
        (name for name in state if name.endswith("weight")), key=lambda name: _layer_number(name)
    )
    if not names:
        raise ValueError(f"{path.name}: no layer has a name that ends in 'weight'")
    width = int(state[names[0]].shape[1]) if width is None else width
    product, bias = np.eye(width), np.zeros(width)
    for name in names:
        layer_weight = state[name].double().numpy()
        if layer_weight.shape[1] != len(product):
            raise ValueError(
                f"{path.name}: layer {name} takes {layer_weight.shape[1]} numbers, "
                f"the one before gives {len(product)}"
            )
        product = layer_weight @ product
        bias = layer_weight @ bias + state[name.removesuffix("weight") + "bias"].double().numpy()
    if len(product) != 1:
        raise ValueError(f"{path.name}: a head must end in one number, it ends in {len(product)}")
    return LinearHead(product[0].astype(np.float32), float(bias[0]))


def _widths(embeddings: pa.ChunkedArray) -> set[int]:
    """How many numbers the embeddings have; one value, unless networks were mixed."""
    frames = pc.list_flatten(embeddings)
    return set(pc.unique(pc.list_value_length(frames)).drop_null().to_pylist())


def _layer_number(name: str) -> int:
    """Position of 'layers.2.weight'; 0 for the lone 'weight' of v1."""
    parts = name.split(".")
    return int(parts[-2]) if len(parts) > 1 else 0


class Aesthetics(Station[AestheticsConfig]):
    """Adds `aesthetic_score` and `aesthetic_min`."""

    name = "aesthetics"
    version = 1
    config_class = AestheticsConfig
    needs = ("frame_embeddings", "embedding_model")

    @property
    def settings(self) -> PublishedHead | OwnHead:
        """Which head; an own one by the digest of its file, wherever it lies."""
        if self.config.checkpoint:
            return OwnHead(trained_on=self.config.trained_on)
        return PublishedHead(head=self.config.head)

    @property
    def _trained_on(self) -> str:
        """The network whose embeddings the head reads."""
        return self.config.trained_on or HEADS[self.config.head].embedding_model

    @property
    def accepts(self) -> Mapping[str, Sequence[str]]:
        """The network whose embeddings it reads."""
        return {"embedding_model": (self._trained_on,)}

    def weights(self) -> Sequence[Weight]:
        """The head's file."""
        if self.config.checkpoint:
            return [weight_at(self.config.checkpoint)]
        return [HEADS[self.config.head].weight]

    def setup(self) -> None:
        """Load the head."""
        (weight,) = self.weights()
        width = HEADS[self.config.head].width
        path = find(weight)
        if not self.config.checkpoint:
            self._head = load_head(path, width=width)
            return
        try:
            self._head = load_head(path)
        except (ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise LavieError(
                f"aesthetics.checkpoint {path}: not a head in LAION's format ({error})"
            ) from error

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Score every keyframe of every clip.

        Raises:
            MissingColumn: if the embeddings are those of another network.
        """
        wanted = self._trained_on
        for model in clips["embedding_model"].unique().to_pylist():
            if model != wanted:
                head = self.config.checkpoint or self.config.head
                raise MissingColumn(
                    f"aesthetics head {head!r} was trained on embeddings of {wanted!r}, "
                    f"these are of {model!r}"
                )
        takes, widths = len(self._head.coefficients), _widths(clips["frame_embeddings"])
        if widths - {takes}:
            raise MissingColumn(
                f"aesthetics head takes embeddings of {takes} numbers, these of {wanted!r} have "
                f"{min(widths - {takes})}"
            )
        scores = [
            self._head(np.asarray(row, np.float32)) if row else np.zeros(0, np.float32)
            for row in clips["frame_embeddings"].to_pylist()
        ]
        return pa.Table.from_arrays(
            [clips["clip_id"], reduced(scores, np.mean), reduced(scores, np.min)],
            schema=layer_schema(self.name),
        )
