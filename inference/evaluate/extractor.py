"""The network whose features are compared: a TorchScript file of the user's, pinned by its sha256.

No FVD extractor can be shipped (I3D, VideoMAE-v2: their files have their own homes and licences), and
a distance means nothing without knowing which one made it. So the file is given together with the digest
that the user expects, and the digest goes into the result.

TorchScript holds a program. It is a graph of tensor operations, not Python, but graphs too can read
and write files; so nothing of a file is interpreted before its digest was found to be the expected one,
and the bytes that are hashed are the bytes that are loaded.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curation.errors import LavieError

SHA256 = re.compile(r"[0-9a-f]{64}")


class Extractor(Protocol):
    """Anything that turns clips into features."""

    sha256: str
    """Digest of what was loaded; goes into the result file."""

    def __call__(self, video_BCTHW: Tensor) -> Tensor:
        """Clips with values 0 to 255, float32 ``[B, 3, T, S, S]``, to features ``[B, D]``."""
        ...


class TorchScriptExtractor:
    """A feature extractor in a TorchScript file.

    Args:
        path: The file.
        sha256: Digest that it must have, 64 hexadecimal digits.
        value_range: Pixel values that it expects: '-1..1', '0..1' or '0..255'.
        flags: Keywords passed as True, such as 'return_features'.
        device: Where it runs.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The digest is another one, or the file holds no TorchScript.
    """

    def __init__(
        self,
        path: Path,
        *,
        sha256: str,
        value_range: str = "-1..1",
        flags: Iterable[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        held = _checked_bytes(path, sha256)
        try:
            net = torch.jit.load(io.BytesIO(held), map_location=device)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"extractor {path} holds no TorchScript: {error}") from error
        self.sha256 = sha256
        self.device = torch.device(device)
        self._net = net.eval()
        self._value_range = value_range
        self._flags = dict.fromkeys(flags, True)

    @torch.inference_mode()
    def __call__(self, video_BCTHW: Tensor) -> Tensor:
        """Clips with values 0 to 255 to features ``[B, D]`` on the CPU.

        Raises:
            LavieError: The network does not give one row of numbers a clip.
        """
        video_BCTHW = scaled(video_BCTHW.to(self.device), self._value_range)
        features = self._net(video_BCTHW, **self._flags)
        if not isinstance(features, Tensor) or features.shape[:1] != video_BCTHW.shape[:1]:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise LavieError(
                f"the extractor must give one row of features for each of {len(video_BCTHW)} "
                f"clips, got {got}"
            )
        return features.flatten(1).float().cpu()


def scaled(video: Tensor, value_range: str) -> Tensor:
    """Values 0 to 255 moved into a range named as in `FrechetProtocol.value_range`."""
    if value_range == "0..255":
        return video
    unit = video / 255
    return unit if value_range == "0..1" else unit * 2 - 1


def _checked_bytes(path: Path, sha256: str) -> bytes:
    if not SHA256.fullmatch(sha256):
        raise ValueError(
            f"the sha256 of the extractor must be 64 hexadecimal digits in lower case, "
            f"got {sha256!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no extractor at {path}")
    held = path.read_bytes()
    found = hashlib.sha256(held).hexdigest()
    if found != sha256:
        raise ValueError(f"extractor {path} has sha256 {found}, expected {sha256}; not loaded")
    return held


def features_of(
    extractor: Extractor, clips: Iterable[Tensor], *, batch: int
) -> NDArray[np.float32]:
    """Features of clips ``[C, T, S, S]``, float32 ``[N, D]``, a few clips at a time; of none, ``[0, 0]``."""
    rows: list[NDArray[np.float32]] = []
    waiting: list[Tensor] = []
    for clip_CTHW in clips:
        waiting.append(clip_CTHW)
        if len(waiting) == batch:
            rows.append(extractor(torch.stack(waiting)).numpy())
            waiting = []
    if waiting:
        rows.append(extractor(torch.stack(waiting)).numpy())
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
