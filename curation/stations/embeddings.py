"""Station `embeddings`: what the keyframes look like, as vectors.

Two engines: a CLIP of open_clip (what the LAION heads and the zero-shot taxonomy need), and
EfficientNet-Lite0 (small, weights from the Python index; for duplicates and ImageNet tags). The
length of each vector is kept beside its direction, so that a head trained on what the network gave
can be run later without the pictures.

Letters: N pictures, C channels, H W size, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curation.corpus.schema import layer_schema
from curation.stations.clip_model import ClipModel, load_clip
from curation.stations.keyframe_images import map_keyframes, resize_and_crop
from curation.stations.station import Resources, Station
from curation.weights.catalog import EFFICIENTNET_LITE0, Weight, find

EFFICIENTNET = "efficientnet-lite0"
"""Value of `embedding_model` for the second engine."""

LITE0_PX = 224
LITE0_SHORT_SIDE_PX = 256
"""Input size and the margin cut off around it: 224 + 32, `CROP_PADDING` of EfficientNet's
preprocessing (github.com/tensorflow/tpu, efficientnet/preprocessing.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsConfig:
    """Settings of the station."""

    engine: Literal["open_clip", "efficientnet_lite0"] = "open_clip"
    """Which network: a CLIP, or EfficientNet-Lite0 (35 CPU-ms a keyframe)."""
    clip: ClipModel = field(default_factory=ClipModel)
    """Which CLIP; unused by the other engine."""
    batch_size: int = 32
    """Keyframes at once; batches cross clips. Part of the settings because the last digits depend
    on it."""
    num_threads: int = 1
    """Processor threads of one worker; the last digits depend on it. Several workers of one thread
    are faster than one of several."""
    gpu_share: float = 0.25
    """Share of a GPU that one worker takes, where there is one; 0.25 of 48 GB is what NVIDIA's
    curation pipeline gives its embedding stage."""

    def __post_init__(self) -> None:
        if self.engine not in ("open_clip", "efficientnet_lite0"):
            raise ValueError(
                f"embeddings.engine must be 'open_clip' or 'efficientnet_lite0', "
                f"got {self.engine!r}"
            )
        for name in ("batch_size", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"embeddings.{name} must be at least 1, got {getattr(self, name)}")
        if self.gpu_share < 0:
            raise ValueError(f"embeddings.gpu_share must not be negative, got {self.gpu_share}")

    @property
    def model_label(self) -> str:
        """Value of the column `embedding_model` with these settings."""
        return self.clip.label if self.engine == "open_clip" else EFFICIENTNET


def with_unit_length(
    vectors_ND: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Directions ``[N, D]`` and lengths ``[N]``; a vector of zeros stays one."""
    norms_N = np.linalg.norm(vectors_ND, axis=1)
    return vectors_ND / np.maximum(norms_N, 1e-12)[:, None], norms_N


def mean_direction(units_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over N of unit vectors, made unit length again; empty for N = 0."""
    if not len(units_ND):
        return np.zeros(0, np.float32)
    return with_unit_length(units_ND.mean(axis=0, keepdims=True))[0][0]


def lite0_input(picture: Image.Image) -> NDArray[np.float32]:
    """Picture to ``[C, H, W]`` about -1..1, RGB, ``(x - 127) / 128`` as the Lite models take it."""
    square = resize_and_crop(
        picture,
        short_side_px=LITE0_SHORT_SIDE_PX,
        crop_px=LITE0_PX,
        resample=Image.Resampling.BICUBIC,
    )
    pixels_HWC = np.asarray(square, np.float32)
    return (pixels_HWC.transpose(2, 0, 1) - 127.0) / 128.0


class Embeddings(Station[EmbeddingsConfig]):
    """Adds `embedding`, `frame_embeddings`, `frame_norms` and `embedding_model`."""

    name = "embeddings"
    version = 1
    config_class = EmbeddingsConfig
    needs = ("keyframes",)

    @property
    def resources(self) -> Resources:
        """What one worker takes; a CLIP ViT-L/14 in fp32 is 1.7 GB."""
        is_clip = self.config.engine == "open_clip"
        return Resources(
            cpus=self.config.num_threads,
            gpus=self.config.gpu_share if is_clip else 0.0,
            memory_bytes=(4 if is_clip else 2) * 1024**3,
        )

    @property
    def promises(self) -> Mapping[str, str]:
        """The network, known before any work."""
        return {"embedding_model": self.config.model_label}

    def weights(self) -> Sequence[Weight]:
        """The network's file or files."""
        if self.config.engine == "open_clip":
            return self.config.clip.weights()
        return [EFFICIENTNET_LITE0]

    def setup(self) -> None:
        """Load the network."""
        import torch

        torch.set_num_threads(self.config.num_threads)
        if self.config.engine == "open_clip":
            self._prepare, self._compute = _clip_network(self.config.clip)
        else:
            self._prepare, self._compute = lite0_input, _lite0_network()

    def of_picture(self, picture: Image.Image) -> NDArray[np.float32]:
        """The unit-length embedding ``[D]`` of one RGB picture, as a keyframe would have it."""
        vectors_ND = self._compute(self._prepare(picture)[None])
        return with_unit_length(vectors_ND)[0][0]

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Embed every keyframe of every clip."""
        raw = map_keyframes(
            clips,
            prepare=self._prepare,
            compute=self._compute,
            batch_size=self.config.batch_size,
        )
        units, norms = [], []
        for vectors_ND in raw:
            units_ND, norms_N = with_unit_length(vectors_ND)
            units.append(units_ND)
            norms.append(norms_N)
        label = self.config.model_label
        return pa.Table.from_arrays(
            [
                clips["clip_id"],
                pa.array([mean_direction(u) for u in units], pa.list_(pa.float32())),
                pa.array([list(u) for u in units], pa.list_(pa.list_(pa.float32()))),
                pa.array(norms, pa.list_(pa.float32())),
                pa.array([label] * clips.num_rows, pa.string()),
            ],
            schema=layer_schema(self.name),
        )


def _clip_network(
    clip: ClipModel,
) -> tuple[
    Callable[[Image.Image], NDArray[np.generic]],
    Callable[[NDArray[np.generic]], NDArray[np.float32]],
]:
    """CLIP's picture tower, its preprocessing first."""
    import torch

    loaded = load_clip(clip)

    def prepare(picture: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = loaded.preprocess(picture).numpy()
        return pixels

    @torch.inference_mode()
    def compute(pixels_NCHW: NDArray[np.generic]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(pixels_NCHW).to(device=loaded.device, dtype=loaded.dtype)
        vectors: NDArray[np.float32] = loaded.model.encode_image(pixels).float().cpu().numpy()
        return vectors

    return prepare, compute


def _lite0_network() -> Callable[[NDArray[np.generic]], NDArray[np.float32]]:
    """EfficientNet-Lite0 up to the pooled features that its classifier reads, ``[N, 1280]``."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network: Any = EfficientNet.from_name(EFFICIENTNET)
    network.load_state_dict(torch.load(find(EFFICIENTNET_LITE0), weights_only=True))
    network.eval()

    @torch.inference_mode()
    def compute(pixels_NCHW: NDArray[np.generic]) -> NDArray[np.float32]:
        features_NCHW = network.extract_features(torch.from_numpy(pixels_NCHW))
        pooled: NDArray[np.float32] = features_NCHW.mean(dim=(2, 3)).numpy()
        return pooled

    return compute
