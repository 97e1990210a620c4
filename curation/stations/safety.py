"""Station `safety`: how likely a clip shows explicit content, by its worst keyframe.

The network is Yahoo's open_nsfw (a thin ResNet-50, github.com/yahoo/open_nsfw) as an ONNX file.
Its authors name no single threshold: under 0.2 is safe and over 0.8 not, with high probability.

Letters: N pictures, H W size, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curation.corpus.schema import layer_schema
from curation.stations.keyframe_images import map_keyframes, reduced
from curation.stations.station import Resources, Station
from curation.weights.catalog import OPEN_NSFW, Weight, find

RESIZED_PX = 256
INPUT_PX = 224
MEAN_BGR = (104.0, 117.0, 123.0)
"""Size, crop and mean of Yahoo's classify_nsfw.py."""
JPEG_QUALITY = 75
"""Yahoo's script saves the scaled picture as JPEG at Pillow's default and reads it back; the
published scores contain this, so ours do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyConfig:
    """Settings of the station."""

    batch_size: int = 16
    """Keyframes at once; batches cross clips."""
    num_threads: int = 1
    """Processor threads of one worker; the last digits depend on it."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"safety.{name} must be at least 1, got {getattr(self, name)}")


def nsfw_input(picture: Image.Image) -> NDArray[np.float32]:
    """Picture to ``[H, W, C]``: squeezed to a square, cropped, BGR, mean taken off."""
    squeezed = picture.resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    edge = (RESIZED_PX - INPUT_PX) // 2
    cropped = squeezed.crop((edge, edge, edge + INPUT_PX, edge + INPUT_PX))
    with io.BytesIO() as buffer:
        cropped.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        buffer.seek(0)
        with Image.open(buffer, formats=("JPEG",)) as read_back:
            pixels_HWC = np.asarray(read_back, np.float32)
    return pixels_HWC[:, :, ::-1] - np.asarray(MEAN_BGR, np.float32)


class Safety(Station[SafetyConfig]):
    """Adds `nsfw_score`."""

    name = "safety"
    version = 1
    config_class = SafetyConfig
    needs = ("keyframes",)

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(cpus=self.config.num_threads)

    def weights(self) -> Sequence[Weight]:
        """The network."""
        return [OPEN_NSFW]

    def setup(self) -> None:
        """Load the network."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.config.num_threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(find(OPEN_NSFW)), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def explicit_probability(self, pixels_NHWC: NDArray[np.generic]) -> NDArray[np.float32]:
        """Probability of explicit content ``[N, 1]``; the network's other output is its rest."""
        probabilities: NDArray[np.float32] = self._session.run(None, {self._input: pixels_NHWC})[0]
        return probabilities[:, 1:]

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Score every keyframe of every clip and keep the highest."""
        scores = map_keyframes(
            clips,
            prepare=nsfw_input,
            compute=self.explicit_probability,
            batch_size=self.config.batch_size,
        )
        return pa.Table.from_arrays(
            [clips["clip_id"], reduced(scores, np.max)], schema=layer_schema(self.name)
        )
