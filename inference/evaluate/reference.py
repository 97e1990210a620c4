"""The reference of a Frechet distance: a folder of videos, or features that were kept of one.

Files hold arrays and nothing else: safetensors, or an .npz that is read with ``allow_pickle=False``.
The pickles in which other projects pass statistics around are not read.

Shape letters: N videos, D width of a feature.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inference.evaluate.protocols import FrechetProtocol
from inference.evaluate.statistics import FeatureStatistics, Gaussian

FACTS_KEY = "lavie_reference"
FEATURES_KEY = "features_ND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Features, or statistics of features, of the reference videos."""

    gaussian: Gaussian
    """Their mean and covariance."""
    features: NDArray[np.float32] | None
    """The features ``[N, D]``, which a kernel distance needs; None where only statistics were kept."""
    facts: dict[str, Any]
    """Where they come from; goes into the result file."""

    @classmethod
    def of(cls, features_ND: NDArray[np.float32], facts: dict[str, Any]) -> Reference:
        """Reference from the features of at least two videos."""
        gaussian = FeatureStatistics.of(features_ND).gaussian()
        return cls(gaussian=gaussian, features=features_ND, facts=facts)


def made_by(protocol: FrechetProtocol, extractor_sha256: str) -> dict[str, Any]:
    """What reference features depend on; kept with them and compared when they are read."""
    return {
        "extractor_sha256": extractor_sha256,
        "extractor_flags": list(protocol.extractor_flags),
        "value_range": protocol.value_range,
        "view": asdict(protocol.reference),
    }


def save_reference(reference: Reference, path: Path, made: dict[str, Any]) -> None:
    """Keep the features of a folder of reference videos in a new ``.safetensors`` file.

    Args:
        reference: With features.
        path: The file; it must not exist.
        made: As of `made_by`.
    """
    if reference.features is None:
        raise ValueError("only a reference with features can be kept, got statistics")
    if path.exists():
        raise FileExistsError(f"the file of a reference must be new, {path} exists")
    facts = json.dumps({"made": made, "videos": reference.facts}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.writing")
    save_file({FEATURES_KEY: reference.features}, draft, metadata={FACTS_KEY: facts})
    draft.replace(path)


def load_reference(path: Path, made: dict[str, Any]) -> Reference:
    """Read a reference from a file.

    Args:
        path: ``.safetensors`` of `save_reference`, or ``.npz`` with ``mu`` [D] and ``sigma`` [D, D].
        made: What the features must have been made by, as of `made_by`. An .npz does not say it; the
            result file then says that.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else, or was made by another extractor or view.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no reference at {path}: neither a folder of videos nor a file")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"a reference must be a folder, .npz or .safetensors, got {path}")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".npz":
        facts = {"file_sha256": sha256, "made": "not said by the file", "count": None}
        return Reference(gaussian=_read_npz(path), features=None, facts=facts)
    features_ND, kept = _read_safetensors(path)
    wrong = [
        f"{name} is {kept['made'].get(name)}, the protocol has {value}"
        for name, value in made.items()
        if kept["made"].get(name) != value
    ]
    if wrong:
        raise ValueError(f"reference {path} was made otherwise: {'; '.join(wrong)}")
    return Reference.of(features_ND, {**kept["videos"], "file_sha256": sha256})


def _read_npz(path: Path) -> Gaussian:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean_D, covariance_DD = arrays["mu"], arrays["sigma"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"reference {path} holds no arrays mu and sigma: {error}") from error
    width = mean_D.shape[0] if mean_D.ndim == 1 else -1
    finite = all(
        array.dtype.kind == "f" and np.isfinite(array).all() for array in (mean_D, covariance_DD)
    )
    if covariance_DD.shape != (width, width) or not finite:
        raise ValueError(
            f"reference {path} must hold finite numbers mu [D] and sigma [D, D], "
            f"got {mean_D.dtype} {mean_D.shape} and {covariance_DD.dtype} {covariance_DD.shape}"
        )
    return Gaussian(mean_D.astype(np.float64), covariance_DD.astype(np.float64))


def _read_safetensors(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            kept = json.loads((file.metadata() or {})[FACTS_KEY])
            features_ND = file.get_tensor(FEATURES_KEY)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"reference {path} is not one that was kept here: {error}") from error
    if not isinstance(kept, dict) or not all(
        isinstance(kept.get(name), dict) for name in ("made", "videos")
    ):
        raise ValueError(f"reference {path} does not say how it was made")
    return features_ND, kept
