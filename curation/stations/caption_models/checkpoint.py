"""A model folder: a path that the user gives, or what was downloaded from the Hugging Face hub.

Nothing is downloaded here, no code of a repository is run (`trust_remote_code` is never set), and
only safetensors are loaded: a pickle in a model folder stays a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from curation.errors import MissingWeights
from curation.weights.catalog import Weight, digest, weight_at

_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"


def model_folder(model: str, revision: str) -> Path:
    """The folder that holds a model's files.

    Args:
        model: a path beginning with '/', './' or '../', else a repository of the hub.
        revision: branch, tag or commit of the repository.

    Raises:
        MissingWeights: it is not on this machine, or not whole; says how to get it.
    """
    if model.startswith(("/", "./", "../")):
        folder = Path(model)
        how = f"model folder {model} is not there or not whole"
    else:
        folder = _cached(model, revision)
        how = (
            f"model {model} ({revision}) is not on this machine or not whole: "
            f"`hf download {model} --revision {revision}` gets it"
        )
    absent = _absent(folder)
    if absent:
        raise MissingWeights(f"{how} (no {', '.join(absent[:3])})")
    return folder


def _cached(repository: str, revision: str) -> Path:
    """Where the hub's cache has a repository; a path without files where it has not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return Path("not-downloaded")


def _absent(folder: Path) -> list[str]:
    """Names of the files without which the model cannot be loaded."""
    wanted = ["config.json"]
    if (folder / _INDEX).is_file():
        try:
            shards = json.loads((folder / _INDEX).read_bytes())["weight_map"].values()
        except (ValueError, KeyError, AttributeError) as error:
            raise MissingWeights(f"{folder / _INDEX} is no index of safetensors") from error
        wanted += sorted(set(shards))
    else:
        wanted.append("model.safetensors")
    return [name for name in wanted if not (folder / name).is_file()]


def model_files(model: str, revision: str) -> Sequence[Weight]:
    """Every file that determines the model's answers, for `curation.stations.station.made_by`.

    Raises:
        MissingWeights: as `model_folder`.
    """
    folder = model_folder(model, revision)
    paths = {path for pattern in _PATTERNS for path in folder.glob(pattern)}
    return [weight_at(path) for path in sorted(paths)]


def model_digest(files: Sequence[Weight]) -> str:
    """One sha256 for a model: of its files' names and digests."""
    lines = "".join(f"{file.name} {digest(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
