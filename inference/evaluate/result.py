"""Running a protocol over a folder of videos, and the JSON that says how each number came about.

The file has no clock and no path of the machine: the same videos, settings and software give the same
bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curation.errors import LavieError
from inference.evaluate.clipsim import ClipScorer
from inference.evaluate.distances import (
    bootstrap,
    counted_statistics,
    frechet_distance,
    kernel_distance,
)
from inference.evaluate.extractor import Extractor, features_of
from inference.evaluate.protocols import (
    PUBLISHED,
    ClipsimProtocol,
    FrechetProtocol,
    View,
    deviations,
    msrvtt,
    ucf101,
)
from inference.evaluate.reference import Reference, load_reference, made_by
from inference.evaluate.statistics import FeatureStatistics
from inference.evaluate.videos import (
    Seen,
    UnusableVideo,
    description_of,
    list_videos,
    read_clip,
    read_frames,
)

FORMAT = "lavie-evaluation"
FORMAT_VERSION = 1
CLIPS_AT_ONCE = 4  # of one pass through the extractor: 4 x 16 frames of 224 x 224 are 39 MB
MOST_NAMED = 20  # of the unreadable videos that an error lists
SOFTWARE = ("av", "numpy", "open_clip_torch", "pillow", "torch")

Track = Callable[[list[Path], str], Iterable[Path]]
Read = TypeVar("Read")


def untracked(paths: list[Path], what: str) -> Iterable[Path]:
    """No progress bar."""
    return paths


@dataclass(slots=True, kw_only=True)
class VideoFolder:
    """A folder of videos that is read once."""

    folder: Path
    """Where they lie; subfolders count."""
    allow_unreadable: int = 0
    """Videos that may be left out because they cannot be read; they are named in the result."""
    track: Track = untracked
    """Wraps the list of videos to show progress; also told what they are."""
    seen: Seen = field(default_factory=Seen)
    """What the videos were like, once read."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Name below the folder -> what is wrong with it, once read."""

    def read(self, what: str, read_one: Callable[[Path, str], Read]) -> Iterator[Read]:
        """What ``read_one(path, name)`` makes of each video that can be read.

        Raises:
            LavieError: More videos are unreadable than allowed; they are named.
        """
        for path in self.track(list_videos(self.folder), what):
            name = path.relative_to(self.folder).as_posix()
            try:
                value = read_one(path, name)
            except UnusableVideo as error:
                self.unreadable[name] = str(error)
                self._check()
                continue
            yield value

    def _check(self) -> None:
        if len(self.unreadable) <= self.allow_unreadable:
            return
        lines = [f"{name} {fault}" for name, fault in list(self.unreadable.items())[-MOST_NAMED:]]
        raise LavieError(
            f"{len(self.unreadable)} videos of {self.folder} cannot be measured, "
            f"{self.allow_unreadable} are allowed (--allow-unreadable):\n  " + "\n  ".join(lines)
        )

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.seen.describe(), "unreadable": dict(sorted(self.unreadable.items()))}


def _features(
    videos: VideoFolder, view: View, extractor: Extractor, what: str
) -> NDArray[np.float32]:
    def clip(path: Path, name: str) -> Tensor:
        return read_clip(path, view, videos.seen, name=name)

    features_ND = features_of(extractor, videos.read(what, clip), batch=CLIPS_AT_ONCE)
    if len(features_ND) < 2 or not np.isfinite(features_ND).all():
        raise LavieError(
            f"{what} must give finite features of at least 2 videos, got {len(features_ND)} from "
            f"{videos.folder}"
        )
    return features_ND


def reference_of(
    path: Path, extractor: Extractor, protocol: FrechetProtocol, videos: VideoFolder
) -> Reference:
    """The reference from a folder of videos or a file that was kept of one.

    Args:
        path: Folder, ``.safetensors`` or ``.npz``.
        extractor: What the videos under test are looked at with.
        protocol: Its `reference` view is used.
        videos: How to read the folder; its own folder is ``path`` where that is one.

    Raises:
        ValueError: The file is none that was kept of a reference, or was made otherwise.
        FileNotFoundError: There is neither a file nor a folder.
        LavieError: Too few videos of the folder can be measured.
    """
    if not path.is_dir():
        return load_reference(path, made_by(protocol, extractor.sha256))
    features_ND = _features(videos, protocol.reference, extractor, "reference videos")
    return Reference.of(features_ND, videos.describe())


def measure_frechet(
    videos: VideoFolder, reference: Reference, extractor: Extractor, protocol: FrechetProtocol
) -> dict[str, Any]:
    """FVD and KVD of a folder of videos, as the content of a result file."""
    features_ND = _features(videos, protocol.generated, extractor, "videos")
    if features_ND.shape[1:] != reference.gaussian.mean.shape:
        raise LavieError(
            f"the reference must have features of the extractor's width {features_ND.shape[1]}, it has "
            f"{len(reference.gaussian.mean)}"
        )

    def distance(counts_N: NDArray[np.int64]) -> float:
        statistics = counted_statistics(features_ND, counts_N)
        return frechet_distance(statistics.gaussian(), reference.gaussian)

    fvd = frechet_distance(FeatureStatistics.of(features_ND).gaussian(), reference.gaussian)
    confidence = bootstrap(
        fvd,
        distance,
        num_items=len(features_ND),
        resamples=protocol.resamples,
        seed=protocol.seed,
    )
    kvd = None
    if reference.features is not None:
        kvd = kernel_distance(features_ND, reference.features)
    return {
        **_header("ucf101", protocol, ucf101(), len(features_ND)),
        "metrics": {
            "fvd": {"value": fvd, "confidence": asdict(confidence) if confidence else None},
            "kvd": {"value": kvd}
            if kvd is not None
            else {"value": None, "reason": "the reference keeps statistics, not features"},
        },
        "extractor": {"sha256": extractor.sha256, "width": features_ND.shape[1]},
        "videos": videos.describe(),
        "reference": reference.facts,
    }


def measure_clipsim(
    videos: VideoFolder, captions: Mapping[str, str], clip: ClipScorer, protocol: ClipsimProtocol
) -> dict[str, Any]:
    """CLIPSIM of a folder of videos, as the content of a result file.

    Args:
        videos: The videos under test.
        captions: Name below the folder -> caption, for every video.
        clip: The model to ask.
        protocol: Which frames are scored.
    """

    def score(path: Path, name: str) -> float:
        frames = read_frames(path, videos.seen, name=name, stride=protocol.frame_stride)
        return clip.clipsim(frames, captions[name])

    scores_N = np.array(list(videos.read("videos", score)), np.float64)
    if not len(scores_N):
        raise LavieError(f"no video of {videos.folder} can be measured")
    value = float(scores_N.mean())
    confidence = bootstrap(
        value,
        lambda counts_N: float(counts_N @ scores_N / counts_N.sum()),
        num_items=len(scores_N),
        resamples=protocol.resamples,
        seed=protocol.seed,
    )
    return {
        **_header("msrvtt", protocol, msrvtt(), len(scores_N)),
        "metrics": {
            "clipsim": {"value": value, "confidence": asdict(confidence) if confidence else None}
        },
        "clip": {"name": clip.name, "sha256": dict(clip.sha256), "dtype": str(clip.dtype)},
        "videos": videos.describe(),
    }


def captions_for(folder: Path, captions: Path | None) -> dict[str, str]:
    """The caption of every video of a folder, by its name below it.

    Args:
        folder: The videos.
        captions: JSON object of names and captions; or None to take "prompt" of the JSON file that
            sampling leaves beside each video.

    Raises:
        FileNotFoundError: There is no such file, or none beside a video.
        ValueError: A caption is missing or empty; the message names the video.
    """
    names = {path.relative_to(folder).as_posix(): path for path in list_videos(folder)}
    if captions is not None:
        held = _read_object(captions)
        found = {name: held.get(name) for name in names}
    else:
        found = {
            name: _read_object(description_of(path)).get("prompt") for name, path in names.items()
        }
    wrong = [name for name, text in found.items() if not isinstance(text, str) or not text.strip()]
    if wrong:
        raise ValueError(
            f"every video must have a caption, {len(wrong)} of {len(names)} have none: "
            f"{', '.join(wrong[:MOST_NAMED])}"
        )
    return {name: str(text) for name, text in found.items()}


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no captions at {path}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(held).__name__}")
    return held


def _header(name: str, protocol: Any, preset: Any, num_videos: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "protocol": name,
        "settings": asdict(protocol),
        "deviations": deviations(protocol, preset, num_videos=num_videos),
        "published": PUBLISHED[name],
        "software": {package: importlib.metadata.version(package) for package in SOFTWARE},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        FileExistsError: There is a file already; a result is never overwritten.
    """
    check_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.writing")
    text = json.dumps(result, indent=2, sort_keys=True, allow_nan=False)
    draft.write_text(f"{text}\n", encoding="utf-8")
    draft.replace(path)


def check_new(path: Path) -> None:
    """Raise FileExistsError where a result would overwrite something."""
    if path.exists():
        raise FileExistsError(f"the result must be a new file, {path} exists")
